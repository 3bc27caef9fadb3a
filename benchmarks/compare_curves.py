"""Learning curves of several experiments in one picture, and when each reached a level.

    python benchmarks/compare_curves.py can_expo can_idql can_rlpd --level 0.8 \
        --out benchmarks/can_methods --paused

Reads NAME.csv and NAME.json beside this script, as ``finetune_seeds.py`` writes them. Writes
OUT.png: every seed thin, their mean thick, over env steps and over minutes; and OUT.json: for each
seed the env steps and seconds at the first evaluation at or above the level, null where none was.
The clock of runs that were paused (``--paused``) tells nothing: only env steps are shown.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from common import save

HERE = Path(__file__).parent
Curve = dict[str, np.ndarray]  # {column: values}
AXES = {  # by the name of what is counted: column, label, its unit
    "env_steps": ("step/env", "env steps, thousands", 1e3),
    "seconds": ("step/wall_s", "minutes", 60.0),
}


def curves(name: str) -> dict[int, Curve]:
    """By seed, the columns of NAME.csv."""
    with (HERE / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    seeds = sorted({int(row["seed"]) for row in rows})
    return {
        seed: {
            key: np.array([float(row[key]) for row in rows if int(row["seed"]) == seed])
            for key in rows[0]
        }
        for seed in seeds
    }


def score_of(curve: Curve) -> str:
    """Its column that holds the score."""
    return next(key for key in curve if key.startswith("eval/"))


def reached(curve: Curve, level: float, shown: Sequence[str]) -> dict[str, float | None]:
    """Env steps and seconds, those ``shown``, at the first evaluation at or above ``level``."""
    at = np.flatnonzero(curve[score_of(curve)] >= level)
    return {name: float(curve[AXES[name][0]][at[0]]) if len(at) else None for name in shown}


def draw(
    axis: plt.Axes, name: str, seeds: list[dict[str, np.ndarray]], x: str, unit: float
) -> None:
    """One experiment in one panel."""
    score = list(seeds[0])[3]
    colour = axis.plot([], [], label=name, linewidth=2.5)[0].get_color()
    for curve in seeds:
        axis.plot(curve[x] / unit, curve[score], color=colour, linewidth=0.7, alpha=0.6)
    grid = np.linspace(0.0, min(curve[x][-1] for curve in seeds), 200)
    mean = np.mean([np.interp(grid, curve[x], curve[score]) for curve in seeds], axis=0)
    axis.plot(grid / unit, mean, color=colour, linewidth=2.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="+")
    parser.add_argument("--level", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--paused", action="store_true", help="leave the clock out")
    args = parser.parse_args()
    shown = ["env_steps"] if args.paused else list(AXES)
    figure, grid = plt.subplots(
        1, len(shown), figsize=(1 + 4 * len(shown), 3.4), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    panels, axes = grid[0], [AXES[name] for name in shown]
    result = {}
    for name in args.experiments:
        seeds = curves(name)
        result[name] = {seed: reached(curve, args.level, shown) for seed, curve in seeds.items()}
        for axis, (key, _, unit) in zip(panels, axes, strict=True):
            draw(axis, name, list(seeds.values()), key, unit)
    for axis, (_, label, _) in zip(panels, axes, strict=True):
        axis.axhline(args.level, color="0.6", linestyle=":")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    base = json.loads((HERE / f"{args.experiments[0]}.json").read_text())["base"]
    panels[0].set_ylabel("success" if "success_rate" in base else "return")
    panels[0].legend(loc="lower right")
    figure.savefig(args.out.with_suffix(".png"), dpi=130)
    save({"level": args.level, "reached": result}, args.out.with_suffix(".json"))


if __name__ == "__main__":
    main()
