"""A value function for V-GPS: it ranks the samples of one policy, learned from its episodes.

Examples:
    genpolicy value algo=cal_ql checkpoint=runs/lift/imitation/RUN data.path=[demos.hdf5,roll.hdf5]
    genpolicy value task=lift eval_every=2000 checkpoint=runs/lift/imitation/RUN data.path=roll.hdf5
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from genpolicy.commands.common import (
    Invocation,
    demonstrations,
    evaluator,
    make_env,
    one_process,
    prepare,
    stored,
    train,
)
from genpolicy.commands.configs import Value
from genpolicy.commands.schemas import build_component
from genpolicy.evaluate.evaluator import check_task
from genpolicy.runs import seeding
from genpolicy.runs.load import load
from genpolicy.values.cal_ql import CalQL, CalQLConfig
from genpolicy.values.rerank import RerankedPolicy


def run(config: Value, invocation: Invocation) -> Path:
    """Train and return the run folder. With a task, the re-ranked policy is evaluated."""
    device = prepare(config.device, config.num_threads)
    one_process("value")
    resumed = stored(config.resume)
    policy = load(config.checkpoint, device)
    task, data = policy.spec.task, config.data
    keys = data.obs_keys or [feature.name for feature in task.observations]
    demos = demonstrations(replace(data, obs_keys=keys), task)
    seeding.seed_torch(config.seed)
    algorithm = CalQL(
        build_component("algo", config.algo, CalQLConfig), policy, demos, config.seed, device
    )
    evaluate = None
    if config.task is not None:
        env = make_env(config.task, config.num_envs, policy.spec.obs_steps)
        check_task(policy.spec, env)
        reranked = RerankedPolicy(policy, algorithm.policy, config.num_samples)
        evaluate = evaluator(reranked, env, config.episodes, config.seed0)
    return train(config, invocation, algorithm, resumed=resumed, evaluate=evaluate)
