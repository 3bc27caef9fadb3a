"""How many of several equally good ways policies take: numbers, and a picture of their paths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from genpolicy.evaluate.statistics import wilson

FAILED = "0.6"  # grey
PANEL = (2.6, 3.5)  # inches
COLUMNS = 5


class Episodes(NamedTuple):
    """What one policy did in E episodes."""

    paths: Sequence[NDArray[Any]]  # E times [T, 2] m
    modes: NDArray[np.int64]  # [E] which way, -1: none to the end
    success: NDArray[np.bool_]  # [E]


class Scene(NamedTuple):
    """What there was to go round."""

    obstacles: NDArray[Any]  # [K, 3] x, y and radius, m
    finish: float  # m, height of the line to cross
    low: tuple[float, float]  # m, lower left corner of the picture
    high: tuple[float, float]  # m, upper right corner
    num_modes: int


def summary(episodes: Episodes, num_modes: int) -> dict[str, Any]:
    """Success with its Wilson interval, and how the successful episodes share the ways.

    ``entropy`` is that of the ways of successful episodes, over the logarithm of ``num_modes``: 1
    if all are equally frequent, 0 if there is one.
    """
    counts = np.bincount(episodes.modes[_counted(episodes)], minlength=num_modes)
    total, succeeded = len(episodes.success), int(episodes.success.sum())
    low, high = wilson(succeeded, total)
    share = counts[counts > 0] / max(counts.sum(), 1)
    return {
        "success_rate": succeeded / total,
        "success_lo": low,
        "success_hi": high,
        "episodes": total,
        "modes": int((counts > 0).sum()),
        "entropy": float(-(share * np.log(share)).sum() / np.log(num_modes)) + 0.0,
        "counts": counts.tolist(),
    }


def draw(panels: Mapping[str, Episodes], scene: Scene, out: Path) -> None:
    """Write a PNG with the paths of several policies, five in a row, coloured by way.

    Args:
        panels: episodes by the policy's name.
        scene: the obstacles.
        out: the file.
    """
    with mpl.rc_context({"axes.titlesize": 9, "font.size": 8}):
        columns = min(len(panels), COLUMNS)
        rows = math.ceil(len(panels) / columns)
        figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axis in grid.flat[len(panels) :]:
            axis.set_visible(False)
        for axis, (name, episodes) in zip(grid.flat, panels.items(), strict=False):
            _draw_scene(axis, scene)
            _draw_paths(axis, episodes, scene.num_modes)
            numbers = summary(episodes, scene.num_modes)
            ways = f"{numbers['modes']} of {scene.num_modes} ways"
            axis.set_title(f"{name}\n{ways}, success {numbers['success_rate']:.1%}")
        for axis in grid[-1]:
            axis.set_xlabel("x, m")
        for axis in grid[:, 0]:
            axis.set_ylabel("y, m")
        figure.savefig(out, dpi=150)


def _counted(episodes: Episodes) -> NDArray[np.bool_]:
    """Episodes whose way counts: those that succeeded."""
    return episodes.success & (episodes.modes >= 0)


def _draw_scene(axis: Axes, scene: Scene) -> None:
    for x, y, radius in scene.obstacles:
        axis.add_patch(Circle((x, y), radius, color="0.25", zorder=3))
    axis.axhline(scene.finish, color="tab:green", linewidth=2, zorder=2)
    axis.set_xlim(scene.low[0], scene.high[0])
    axis.set_ylim(scene.low[1], scene.high[1])
    axis.set_aspect("equal")


def _draw_paths(axis: Axes, episodes: Episodes, num_modes: int) -> None:
    colours = mpl.colormaps["turbo"](np.linspace(0.03, 0.97, num_modes))
    counted = _counted(episodes)
    for path, mode, good in zip(episodes.paths, episodes.modes, counted, strict=True):
        colour = colours[mode] if good else FAILED
        axis.plot(path[:, 0], path[:, 1], color=colour, linewidth=0.7, alpha=0.6)
        if not good:
            axis.plot(*path[-1], "x", color=FAILED, markersize=4)
