"""What several commands share: devices, environments, run folders, and a training run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import genpolicy_sim
import torch
import yaml

from genpolicy.commands.configs import DataConfig, TaskConfig, Training
from genpolicy.data.demonstrations import Demonstrations
from genpolicy.data.hdf5 import read_demonstrations
from genpolicy.evaluate.evaluator import Evaluation, evaluate
from genpolicy.interfaces import Algorithm
from genpolicy.runs import checkpoint, distributed, environment
from genpolicy.runs.files import refuse_existing, write_json, write_text
from genpolicy.runs.logger import Logger
from genpolicy.runs.loop import LoopConfig, Run
from genpolicy.runs.progress import ProgressBar, say
from genpolicy.runs.threads import set_threads
from genpolicy.spec import GenpolicyError, TaskSpec, VecEnv

DEFAULT_SAMPLES = 10  # of V-GPS: what a value function chooses among


@dataclass(frozen=True)
class Invocation:
    """How a command was called: what its run folder records."""

    resolved: dict[str, Any]  # the whole configuration in plain containers
    overrides: list[str] = field(default_factory=list)


def prepare(device: str, num_threads: int | None) -> str:
    """Threads, processes and the device that ``auto`` means.

    Raises:
        GenpolicyError: the device is not here.
    """
    set_threads(num_threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise GenpolicyError(f"device={device} is unknown: choose auto, cpu or cuda")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise GenpolicyError(f"device={device}: torch sees no GPU here, use device=cpu")
    distributed.start(device)
    return device


def one_process(verb: str) -> None:
    """Refuse ``torchrun`` where gradients are not averaged: each rank would learn on its own.

    Raises:
        GenpolicyError: several processes run.
    """
    if distributed.world_size() > 1:
        raise GenpolicyError(
            f"genpolicy {verb} runs in one process only so far: start it without torchrun"
        )


def demonstrations(data: DataConfig, task: TaskSpec | None) -> Demonstrations:
    """The demonstrations of ``data``; says so where they come from another simulator's version.

    Args:
        data: Files and what to read of them.
        task: What they are for.
    """
    demos = read_demonstrations(
        data.path,
        task=task,
        obs_keys=data.obs_keys,
        max_episodes=data.max_episodes,
        mask=data.mask,
    )
    here = task.versions if task else {}
    for package, version in demos.task.versions.items():
        if here.get(package, version) != version:
            say(
                f"{', '.join(demos.sources)}: recorded with {package} {version}, and this task "
                f"equals {here[package]}: controllers and objects differ between versions, so an "
                "imitation may succeed less often here than its demonstrations did"
            )
    return demos


def make_env(task: TaskConfig, num_envs: int, history: int) -> VecEnv:
    """The simulated task."""
    return genpolicy_sim.make(task.name, num_envs, history=history, **task.options)


def new_run_dir(run_dir: str | None, *parts: str) -> Path:
    """Create the run folder: the given one, else ``runs/<parts>``; it must be new.

    Raises:
        GenpolicyError: it exists and holds something.
    """
    path = _create_run_dir(run_dir, Path("runs", *parts)) if distributed.is_main() else None
    return Path(distributed.gather(path)[0])


def _create_run_dir(run_dir: str | None, default: Path) -> Path:
    if run_dir is None:
        return _first_free(default)
    path = Path(run_dir)
    if not path.is_dir() or any(path.iterdir()):
        refuse_existing(path, "run_dir")
        path.mkdir(parents=True)
    return path


def default_name(seed: int) -> str:
    """``<date-time>-s<seed>``."""
    return f"{datetime.now():%Y-%m-%d-%H%M%S}-s{seed}"


def _first_free(path: Path) -> Path:
    """Sweeps start several runs within a second, so the name alone is not unique."""
    number = 1
    while True:
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        with contextlib.suppress(FileExistsError):
            candidate.mkdir(parents=True)
            return candidate
        number += 1


def evaluator(policy: Any, env: VecEnv, episodes: int, seed0: int) -> Callable[[], Evaluation]:
    """Evaluate ``policy`` as it will then be, with a progress bar."""

    def run() -> Evaluation:
        with ProgressBar("evaluating", episodes) as bar:
            return evaluate(policy, env, episodes=episodes, seed0=seed0, on_episodes=bar.advance)

    return run


def train(
    config: Training,
    invocation: Invocation,
    algorithm: Algorithm,
    *,
    resumed: checkpoint.Checkpoint | None = None,
    evaluate: Callable[[], Evaluation] | None = None,
    x_axis: str = "step/update",
) -> Path:
    """Run ``algorithm`` in the loop, in a new run folder or in the one that is resumed.

    Returns:
        The run folder.
    """
    task, algo = algorithm.policy.spec.task.task, invocation.resolved["algo"]["name"]
    if resumed is not None:
        run_dir = resumed.path.parents[1]
    else:
        run_dir = new_run_dir(config.run_dir, task, algo, default_name(config.seed))
        _describe(run_dir, invocation)
    logger = Logger(
        run_dir,
        invocation.resolved,
        **asdict(config.wandb),
        resume_step=resumed.step if resumed else None,
        x_axis=x_axis,
    )
    loop = LoopConfig(
        iterations=config.iterations,
        log_every=config.log_every,
        eval_every=config.eval_every if evaluate else 0,
        eval_first=config.eval_first and evaluate is not None,
        save_every=config.save_every,
        keep=config.keep,
        stop_at=config.stop_at,
    )
    run = Run(algorithm, loop, run_dir, invocation.resolved, logger, evaluate)
    if resumed is not None:
        run.resume(resumed)
        say(f"Going on after iteration {resumed.step} of {run_dir}.")
    try:
        run.loop()
    finally:
        logger.close()
    say(f"Done: {run_dir}")
    return run_dir


def _describe(run_dir: Path, invocation: Invocation) -> None:
    """``config.yaml``, ``overrides.yaml`` and ``env.json`` of a new run."""
    if not distributed.is_main():
        return
    write_text(run_dir / "config.yaml", yaml.safe_dump(invocation.resolved, sort_keys=False))
    write_text(run_dir / "overrides.yaml", yaml.safe_dump(invocation.overrides))
    write_json(run_dir / "env.json", environment.describe())


def stored(resume: str | None) -> checkpoint.Checkpoint | None:
    """The checkpoint that an interrupted run goes on from: its last."""
    return None if resume is None else checkpoint.load(resume, prefer="last")
