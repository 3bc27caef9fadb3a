"""Episodes of the task's scripted expert, or of a policy, as a robomimic HDF5 file.

Examples:
    genpolicy collect task=lift out=demos.hdf5 episodes=200
    genpolicy collect task=lift out=rollouts.hdf5 episodes=300 checkpoint=runs/lift/imitation/RUN
    genpolicy collect task=hopper out=medium.hdf5 checkpoint=runs/hopper/ppo/RUN explore=true
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import genpolicy_sim

from genpolicy.commands.common import Invocation, make_env, prepare
from genpolicy.commands.configs import Collect
from genpolicy.data.collect import CollectStats, collect_episodes
from genpolicy.data.foreign_task import TASK_NAMES
from genpolicy.data.robomimic_writer import RobomimicWriter
from genpolicy.evaluate.evaluator import check_task
from genpolicy.policies.base import ChunkPolicy
from genpolicy.runs.files import refuse_existing
from genpolicy.runs.load import load
from genpolicy.runs.progress import ProgressBar, say
from genpolicy.runs.seeding import env_seed, generator
from genpolicy.spec import GenpolicyError, TaskSpec, VecEnv


def run(config: Collect, invocation: Invocation) -> None:
    """Collect and write."""
    if config.task is None:
        raise GenpolicyError("task=null: collecting needs a simulated task, such as task=lift")
    refuse_existing(Path(config.out), "out")
    device = prepare(config.device, config.num_threads)
    policy = load(config.checkpoint, device) if config.checkpoint else None
    env = make_env(config.task, config.num_envs, policy.spec.obs_steps if policy else 1)
    act, on_wave = _driver(config, policy, env)
    only = config.success_only
    if only is None:  # what is judged by its return may never succeed
        only = policy is None and env.spec.score == "success"
    with (
        RobomimicWriter(config.out, env_args(env.spec), env.spec) as writer,
        ProgressBar("collecting", config.episodes) as bar,
    ):
        stats = collect_episodes(
            env,
            act,
            config.episodes,
            writer.add,
            seed=env_seed(config.seed, "collect"),
            success_only=only,
            on_wave=on_wave,
            progress=lambda kept: bar.advance(kept - bar.done),
        )
    say(f"{config.out}: {summary(stats, env.spec)}")


def _driver(config: Collect, policy: Any, env: VecEnv) -> tuple[Callable[..., Any], Any]:
    """What acts, and what is to be done before each wave of episodes."""
    if policy is not None:
        check_task(policy.spec, env)
        policy.rng = generator(config.seed, "collect")
        if not config.explore:
            return policy.act, None
        if not isinstance(policy, ChunkPolicy):
            raise GenpolicyError(
                f"{config.checkpoint}: a controller cannot explore: give its "
                "checkpoint, or explore=false"
            )
        return partial(policy.act, deterministic=False), None
    assert config.task is not None
    expert = genpolicy_sim.expert(
        config.task.name, config.num_envs, seed=config.seed, **config.expert
    )
    return expert.act, lambda seed: expert.reset()


def env_args(task: TaskSpec) -> dict[str, Any]:
    """Robomimic's description of the task: of robosuite's (type 1), else Gymnasium's (type 2)."""
    if "robosuite" not in task.versions:
        version = task.versions.get("gymnasium", "")
        return {"env_name": task.task, "env_version": version, "type": 2, "env_kwargs": {}}
    names = {ours: theirs for theirs, ours in TASK_NAMES.items()}
    return {
        "env_name": names.get(task.task, task.task.title().replace("_", "")),
        "env_version": task.versions.get("robosuite", ""),
        "type": 1,
        "env_kwargs": {
            "robots": task.robot.split("+"),
            "control_freq": int(task.control_hz),
            "horizon": task.max_episode_steps,
            "has_renderer": False,
            "has_offscreen_renderer": False,
            "use_camera_obs": False,
            "use_object_obs": True,
        },
    }


def summary(stats: CollectStats, task: TaskSpec) -> str:
    """One line for people, by what the task is judged by."""
    how = f"{stats.successes / stats.attempts:.0%} of which succeeded"
    if task.score == "return":
        how = f"mean return {stats.total_return / stats.attempts:.4g}"
    return f"{stats.kept} episodes of {stats.attempts} attempts, {how} ({stats.env_steps} steps)."
