"""Success or return of a policy with its 95 % interval, and videos of the worst and the best.

Examples:
    genpolicy eval checkpoint=runs/lift/dppo/RUN episodes=300
    genpolicy eval checkpoint=controller.onnx num_samples=1
    genpolicy eval checkpoint=runs/lift/imitation/RUN value=runs/lift/cal_ql/RUN num_samples=10
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from genpolicy_sim import rendering

from genpolicy.commands.common import (
    DEFAULT_SAMPLES,
    Invocation,
    default_name,
    evaluator,
    make_env,
    new_run_dir,
    prepare,
)
from genpolicy.commands.configs import Eval, TaskConfig
from genpolicy.commands.schemas import build
from genpolicy.evaluate.evaluator import check_task
from genpolicy.evaluate.videos import film, worth_filming
from genpolicy.runs import checkpoint, environment
from genpolicy.runs.files import write_json
from genpolicy.runs.load import OnnxPolicy, load_value, policy_of
from genpolicy.runs.progress import say
from genpolicy.spec import GenpolicyError
from genpolicy.values.rerank import RerankedPolicy


def run(config: Eval, invocation: Invocation) -> Path:
    """Evaluate and return the folder with ``eval.json`` and the videos."""
    device = prepare(config.device, config.num_threads)
    policy, task = load_policy(config, device)
    env = make_env(task, config.num_envs, policy.spec.obs_steps)
    check_task(policy.spec, env)
    run_dir = new_run_dir(config.run_dir, task.name, "eval", default_name(config.seed0))
    evaluation = evaluator(policy, env, config.episodes, config.seed0)()
    result = {
        "task": task.name,
        "checkpoint": config.checkpoint,
        "value": config.value,
        **evaluation.to_dict(),
        "versions": environment.package_versions(),
    }
    write_json(run_dir / "eval.json", result)
    say(f"{config.checkpoint}: {evaluation.summary()}")
    say(f"{run_dir / 'eval.json'}")
    seeds = worth_filming(evaluation, config.videos)
    make_films(policy, task, seeds, run_dir / "videos")
    return run_dir


def make_films(policy: Any, task: TaskConfig, seeds: list[int], folder: Path) -> list[Path]:
    """One film per seed; without OpenGL one line says what to install, and that is all."""
    env = make_env(task, 1, policy.spec.obs_steps)
    render = partial(rendering.render, env)
    try:
        return [film(policy, env, seed, folder, render) for seed in seeds]
    except GenpolicyError as error:
        say(f"No videos: {error}")
        return []


def load_policy(config: Eval, device: str) -> tuple[Any, TaskConfig]:
    """What is evaluated and in which task: by default the one that it was made for.

    Raises:
        GenpolicyError: as ``load``; or no task is named where the checkpoint knows none.
    """
    if Path(config.checkpoint).suffix == ".onnx":
        if config.value is not None:
            raise GenpolicyError(f"value={config.value}: {config.checkpoint} brings its own scores")
        policy: Any = OnnxPolicy(config.checkpoint, config.num_samples, config.temperature)
        return policy, config.task or TaskConfig(policy.spec.task.task)
    found = checkpoint.load(config.checkpoint)
    policy = policy_of(found, device)
    own = found.config.get("task")
    task = config.task or (build(TaskConfig, own) if own else TaskConfig(policy.spec.task.task))
    if config.value is None:
        if config.num_samples not in (None, 1):
            raise GenpolicyError(
                f"num_samples={config.num_samples} needs a value function to choose with: "
                f"value=CHECKPOINT"
            )
        return policy, task
    samples = config.num_samples or DEFAULT_SAMPLES
    value = load_value(config.value, device)
    return RerankedPolicy(policy, value, samples, config.temperature or 0.0), task
