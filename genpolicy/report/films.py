"""A film of what fine-tuning changed: the same initial states, before beside after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genpolicy.evaluate.evaluator import Evaluation
from genpolicy.evaluate.videos import States, record, write_mp4
from genpolicy.runs.files import new_file
from genpolicy.spec import VecEnv

Frames = NDArray[np.uint8]  # [T, H, W, 3]
HOLD_S = 0.8  # the last picture stays
BORDER = 8  # pixels under every picture
RUNNING, SUCCESS, FAILURE = (96, 96, 96), (46, 160, 90), (208, 70, 60)
CANDIDATES = 5  # initial states tried per rescue wanted


class Rescue(NamedTuple):
    """One initial state from which the first policy fails and the second succeeds."""

    seed: int
    before: States
    after: States


def film_rescues(
    before: Any,
    after: Any,
    evaluations: tuple[Evaluation, Evaluation],
    env: VecEnv,
    draw: Callable[..., Frames],
    path: Path,
    count: int = 2,
) -> list[int]:
    """Film ``count`` episodes that only ``after`` solves, side by side, into one MP4.

    Args:
        before: first policy.
        after: second policy.
        evaluations: of the two, over the same initial states.
        env: one environment.
        draw: states, by name, to pictures ``[T, H, W, 3]``.
        path: the MP4.
        count: how many.

    Returns:
        Seeds of the filmed episodes; without any (nothing was rescued) there is no file.
    """
    rescues = list(_rescues(before, after, evaluations, env, count))
    if rescues:
        scenes = [
            beside(draw(**r.before), draw(**r.after), round(HOLD_S * env.spec.control_hz))
            for r in rescues
        ]
        with new_file(path) as aside:
            write_mp4(aside, np.concatenate(scenes), env.spec.control_hz)
    return [rescue.seed for rescue in rescues]


def _rescues(
    before: Any, after: Any, evaluations: tuple[Evaluation, Evaluation], env: VecEnv, count: int
) -> Iterator[Rescue]:
    """Episodes that end alone as they ended among many (rounding differs: a few do not)."""
    first, second = evaluations
    found = 0
    for i in np.flatnonzero(~first.success & second.success)[: CANDIDATES * count]:
        seed = first.seed0 + int(i)
        paths = [record(policy, env, seed) for policy in (before, after)]
        if [success for _, success, _ in paths] == [False, True]:
            yield Rescue(seed, paths[0][0], paths[1][0])
            found += 1
        if found == count:
            return


def beside(left: Frames, right: Frames, hold: int) -> Frames:
    """Two films as one, as long as the longer; the bar below turns red or green at the end."""
    length = max(len(left), len(right)) + hold
    return np.concatenate(
        [_extended(left, length, FAILURE), _extended(right, length, SUCCESS)], axis=2
    )


def _extended(frames: Frames, length: int, outcome: tuple[int, int, int]) -> Frames:
    rest = np.repeat(frames[-1:], length - len(frames), axis=0)
    film = np.concatenate([frames, rest])
    bar = np.empty((length, BORDER, *frames.shape[2:]), np.uint8)
    bar[: len(frames)], bar[len(frames) :] = RUNNING, outcome
    return np.concatenate([film, bar], axis=1)
