"""Reinforcement learning in simulation, from a checkpoint (or from scratch).

Examples:
    genpolicy finetune algo=dppo init=runs/lift/imitation/RUN
    genpolicy finetune algo=fpo policy=flow_small task=cheetah_run
    genpolicy finetune experiment=lift_dppo init=runs/lift/imitation/RUN stop_at=0.95
    genpolicy finetune resume=runs/lift/dppo/RUN iterations=300
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from genpolicy.commands.common import (
    Invocation,
    demonstrations,
    evaluator,
    make_env,
    prepare,
    stored,
    train,
)
from genpolicy.commands.configs import Finetune, TaskConfig
from genpolicy.commands.schemas import build_component
from genpolicy.evaluate.evaluator import check_task
from genpolicy.finetune import build_algorithm
from genpolicy.finetune.rollout import RolloutConfig
from genpolicy.policies import build_policy
from genpolicy.policies.base import ChunkPolicy
from genpolicy.runs import distributed, seeding
from genpolicy.runs.checkpoint import Checkpoint
from genpolicy.runs.load import load, policy_of
from genpolicy.spec import GenpolicyError, PolicySpec


def run(config: Finetune, invocation: Invocation) -> Path:
    """Train and return the run folder."""
    if config.task is None:
        raise GenpolicyError("task=null: fine-tuning needs a simulated task, such as task=lift")
    device = prepare(config.device, config.num_threads)
    resumed = stored(config.resume)
    base = _base(config, config.task, resumed, device)
    share = max(1, config.num_envs // distributed.world_size())  # num_envs is global
    env, eval_env = (
        make_env(config.task, n, base.spec.obs_steps) for n in (share, config.num_envs)
    )
    check_task(base.spec, env)
    demos = None if config.data.path is None else demonstrations(config.data, env.spec)
    if demos is not None:
        check_task(replace(base.spec, task=demos.task), env)
    algorithm = build_algorithm(config.algo["name"], base, env, _algo(config), config.seed, demos)
    evaluate = evaluator(algorithm.policy, eval_env, config.episodes, config.seed0)
    return train(
        config, invocation, algorithm, resumed=resumed, evaluate=evaluate, x_axis="step/env"
    )


def _algo(config: Finetune) -> RolloutConfig:
    """The method's hyperparameters; null stands for what fits: from scratch, or not."""
    algo = build_component("algo", config.algo, RolloutConfig)
    if algo.normalize_obs and config.init is not None:
        raise GenpolicyError(
            "algo.normalize_obs=true would change what the network of init=... sees: leave it null"
        )
    unset = [
        name for name in ("normalize_obs", "stagger", "identity") if getattr(algo, name, 0) is None
    ]
    return replace(algo, **dict.fromkeys(unset, config.init is None))


def _base(config: Finetune, task: TaskConfig, resumed: Checkpoint | None, device: str) -> Any:
    """The policy to start from; an interrupted run goes on from its own, wherever init went."""
    if resumed is not None:
        return policy_of(resumed, device)
    if config.init is not None:
        policy = load(config.init, device)
        if not isinstance(policy, ChunkPolicy):
            raise GenpolicyError(
                f"init={config.init}: an exported controller cannot be trained: give its checkpoint"
            )
        return policy
    env = make_env(task, 1, 1)
    env.close()  # only what it observes and commands is wanted here
    seeding.seed_torch(config.seed)
    spec = PolicySpec(env.spec, config.obs_steps, config.chunk, config.exec_steps)
    return build_policy(config.policy, spec).to(device)
