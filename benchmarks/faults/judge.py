"""Whether an arm stayed safe, by what arrived at its peer, and whether the flight log tells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from genpolicy_deploy.flight_log import FlightLog, read_log
from genpolicy_deploy.robots.base import Limits
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError

STRIDES = (1, 5)  # goals between those that are compared: a window irons rounding out
GAP_PERIODS = 2.2  # a longer pause: after it an arm starts again from rest
LOST = 4  # goals in a row that a wire may lose while it is being damaged
TOLERANCE = 1.001
_STALL = re.compile(r"the arm's process did not run for (\d+) ms")

Goals = Sequence[tuple[float, Sequence[float]]]  # s, and rad (m) per joint
Spans = Sequence[tuple[float, float]]  # s, from and to


def escapes(
    goals: Goals,
    limits: Limits,
    period_s: float,
    resolution: NDArray[np.float64],
    damaged: Spans = (),
    stalled: Spans = (),
) -> list[str]:
    """Every way in which goals at the wire left the limits; empty when they never did.

    Args:
        goals: as received, of one run.
        limits: of the joints.
        period_s: between two goals.
        resolution: by how much the wire rounds, per joint.
        damaged: when goals may have been lost.
        stalled: when the arm's process stood still, see ``stalls``.
    """
    if len(goals) < 3:
        return []
    times = np.array([t for t, _ in goals])
    path = np.array([q for _, q in goals])
    if not np.isfinite(path).all():
        return ["a goal is not finite"]
    found = []
    low, high = np.array(limits.low) - resolution, np.array(limits.high) + resolution
    if ((path < low) | (path > high)).any():
        found.append("position")
    lossy = _within(times, damaged)
    allowed = np.array(limits.velocity) * period_s * TOLERANCE + 2.0 * resolution
    steps = np.abs(np.diff(path, axis=0))
    if (steps > allowed * np.where(lossy[1:], 1 + LOST, 1)[:, None]).any():
        worst = (steps / allowed).max()
        found.append(f"velocity ({worst:.2f} of the limit)")
    anew = (np.diff(times) > GAP_PERIODS * period_s) | lossy[1:] | _within(times, stalled)[1:]
    breaks = np.flatnonzero(anew) + 1
    for part in np.split(path, breaks):
        found += _accelerations(part, limits, period_s, resolution)
    return sorted(set(found))


def _within(times: NDArray[np.float64], spans: Spans) -> NDArray[np.bool_]:
    """Which of ``times`` lie in one of ``spans``, or right behind."""
    inside = np.zeros(len(times), np.bool_)
    for start, end in spans:
        inside |= (times > start) & (times < end)
    inside[1:] |= inside[:-1]
    return inside


def _accelerations(
    path: NDArray[np.float64], limits: Limits, period_s: float, resolution: NDArray[np.float64]
) -> list[str]:
    """Second differences of goals that left at an even pace."""
    found = []
    for stride in STRIDES:
        if len(path) <= 2 * stride:
            continue
        bend = np.abs(path[2 * stride :] - 2.0 * path[stride:-stride] + path[: -2 * stride])
        allowed = np.array(limits.acceleration) * (stride * period_s) ** 2 * TOLERANCE
        allowed = allowed + 4.0 * resolution
        if (bend > allowed).any():
            found.append(f"acceleration ({(bend / allowed).max():.2f} of the limit)")
    return found


def changes(goals: Goals) -> list[tuple[float, Sequence[float]]]:
    """Goals without repetitions: the simulated robot is sent each one many times."""
    kept = [goal for goal, before in zip(goals[1:], goals, strict=False) if goal[1] != before[1]]
    return [*goals[:1], *kept]


def rested_s(goals: Goals, since: float) -> float:
    """How long after second ``since`` the goals still changed."""
    moved = [
        t
        for (t, q), (_, before) in zip(goals[1:], goals, strict=False)
        if q != before and t > since
    ]
    return max(moved, default=since) - since


def read(path: Path) -> FlightLog | None:
    """The log, if it can be read."""
    try:
        return read_log(path)
    except GenpolicyError:
        return None


def stalls(log: FlightLog) -> list[tuple[float, float]]:
    """When, by its own word, the arm's process stood still: the joints then start from rest.

    A peer on the same computer may have stood still, too; then it does not see the pause.
    """
    spans = []
    ticks = log.ticks["t_ns"]
    for row in log.events:
        if match := _STALL.search(bytes(row["text"]).decode(errors="replace")):
            heard = int(row["t_ns"])
            before = ticks[ticks < heard][-1:]  # the loop hears of it at its next tick
            since = int(before[0]) if len(before) else heard
            spans.append((since / 1e9 - int(match[1]) / 1e3 - 0.05, heard / 1e9 + 0.02))
    return spans


def tells(log: FlightLog, event: str, start: float, end: float) -> bool:
    """Whether it has an event that matches ``event`` ("kind text"), between two times in s."""
    for row in log.events:
        if start - 0.05 <= int(row["t_ns"]) / 1e9 <= end:
            kind, text = (bytes(row[name]).decode(errors="replace") for name in ("kind", "text"))
            if re.search(event, f"{kind} {text}"):
                return True
    return False
