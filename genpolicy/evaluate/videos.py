"""Films of single episodes, to see what a success rate or a mean return is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from numpy.typing import NDArray

from genpolicy.evaluate.evaluator import EpisodeNoise, Evaluation, Sampler, act
from genpolicy.runs.files import new_file
from genpolicy.spec import GenpolicyError, VecEnv

States = dict[str, NDArray[np.float64]]  # {"qpos": [T, nq]}, and "memo" [T, m] where tasks have one
Render = Callable[..., NDArray[np.uint8]]  # (**states) -> [T, H, W, 3]


def film(policy: Sampler, env: VecEnv, seed: int, folder: Path, render: Render) -> Path:
    """Film the episode that the evaluator ran from ``seed``.

    Args:
        policy: what acts.
        env: one environment, made with ``history=policy.spec.obs_steps``.
        seed: of initial state and noise.
        folder: where ``seed_<seed>_<ending>.mp4`` is written.
        render: draws states, one row per control step.

    Returns:
        The file. Its name says how the filmed episode ended: with one environment instead of
        many, rounding differs, and an episode on the edge may end otherwise.

    Raises:
        GenpolicyError: the environment does not tell its joint positions.
    """
    states, success, total = record(policy, env, seed)
    ending = "success" if success else "failure"
    if env.spec.score == "return":
        ending = f"return_{total:.0f}"
    path = folder / f"seed_{seed}_{ending}.mp4"
    frames = render(**states)
    with new_file(path) as aside:
        write_mp4(aside, frames, env.spec.control_hz)
    return path


def record(policy: Sampler, env: VecEnv, seed: int) -> tuple[States, bool, float]:
    """What can be drawn before every control step of one episode; success and return."""
    noise, stream = EpisodeNoise(policy), np.random.default_rng(seed)
    obs = env.reset(seed)
    states, done, success, total = [], False, False, 0.0
    while not done:
        chunk = act(policy, obs, np.arange(1), noise.draw([stream]))
        for t in range(chunk.shape[1]):
            states.append(_drawable(env))
            result = env.step(chunk[:, t : t + 1])
            obs = result.obs
            success = success or bool(result.success[0])
            total += float(result.reward[0])
            if done := bool(result.done[0]):
                break
    rows = {name: np.stack([state[name] for state in states]) for name in states[0]}
    return rows, success, total


def _drawable(env: VecEnv) -> States:
    state = env.get_state()
    if "qpos" not in state:
        raise GenpolicyError(f"task {env.spec.task!r} tells no joint positions that could be drawn")
    return {name: state[name][0] for name in ("qpos", "memo") if name in state}


def worth_filming(evaluation: Evaluation, count: int) -> list[int]:
    """Seeds of ``count`` failures and ``count`` successes, or of the worst and best returns."""
    if evaluation.score == "return":
        order = np.argsort(evaluation.returns, kind="stable")
        worst, best = order[:count], order[count:][::-1][:count]
    else:
        worst = np.flatnonzero(~evaluation.success)[:count]
        best = np.flatnonzero(evaluation.success)[:count]
    return [evaluation.seed0 + int(i) for i in (*worst, *best)]


def write_mp4(path: Path, frames: NDArray[np.uint8], fps: float) -> None:
    """H.264 in a form that every browser plays (frame sides must be even)."""
    options: dict[str, Any] = {"macro_block_size": 2, "pixelformat": "yuv420p"}
    imageio.mimwrite(path, list(frames), format="FFMPEG", fps=fps, codec="libx264", **options)  # type: ignore[arg-type]
