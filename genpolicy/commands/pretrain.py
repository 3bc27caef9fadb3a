"""Imitation: fit a generative policy to demonstrations, with or without a simulator for them.

Examples:
    genpolicy pretrain task=lift policy=diffusion_mlp data.path=demos.hdf5
    genpolicy pretrain task=null data.path=real_robot.hdf5 iterations=20000
    genpolicy pretrain task=hopper data.path=main_data.hdf5
    genpolicy pretrain -m seed=0,1,2 data.path=demos.hdf5
    genpolicy pretrain resume=runs/lift/imitation/RUN
"""

from __future__ import annotations

from pathlib import Path

from genpolicy.commands.common import (
    Invocation,
    demonstrations,
    evaluator,
    make_env,
    prepare,
    stored,
    train,
)
from genpolicy.commands.configs import Pretrain
from genpolicy.commands.schemas import build_component
from genpolicy.data.windows import ChunkDataset
from genpolicy.evaluate.evaluator import check_task
from genpolicy.policies import build_policy
from genpolicy.pretrain.imitation import Imitation, ImitationConfig
from genpolicy.runs import seeding
from genpolicy.spec import PolicySpec


def run(config: Pretrain, invocation: Invocation) -> Path:
    """Train and return the run folder."""
    device = prepare(config.device, config.num_threads)
    resumed = stored(config.resume)
    env = make_env(config.task, config.num_envs, config.obs_steps) if config.task else None
    demos = demonstrations(config.data, env.spec if env else None)
    spec = PolicySpec(demos.task, config.obs_steps, config.chunk, config.exec_steps)
    if env is not None:
        check_task(spec, env)
    seeding.seed_torch(config.seed)
    algorithm = Imitation(
        build_policy(config.policy, spec),
        ChunkDataset(demos, config.obs_steps, config.chunk, device),
        build_component("algo", config.algo, ImitationConfig),
        seed=config.seed,
    )
    evaluate = evaluator(algorithm.policy, env, config.episodes, config.seed0) if env else None
    return train(config, invocation, algorithm, resumed=resumed, evaluate=evaluate)
