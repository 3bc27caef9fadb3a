"""Learning curves of several experiments in one picture, and when each reached a level.

    python benchmarks/compare_curves.py can_expo can_idql can_rlpd --level 0.8 \
        --out benchmarks/can_methods

Reads NAME.csv and NAME.json beside this script, as ``finetune_seeds.py`` writes them. Writes
OUT.png: every seed thin, their mean thick, over env steps and over minutes; and OUT.json: for each
seed the env steps and seconds at the first evaluation at or above the level, null where none was.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from common import save

HERE = Path(__file__).parent
Curve = dict[str, np.ndarray]  # {column: values}
AXES = (("step/env", "env steps, thousands", 1e3), ("step/wall_s", "minutes", 60.0))


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


def reached(curve: Curve, level: float) -> dict[str, float | None]:
    """Env steps and seconds at the first evaluation at or above ``level``."""
    at = np.flatnonzero(curve[score_of(curve)] >= level)
    if not len(at):
        return {"env_steps": None, "seconds": None}
    env_steps, seconds = (float(curve[key][at[0]]) for key, _, _ in AXES)
    return {"env_steps": env_steps, "seconds": seconds}


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
    args = parser.parse_args()
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    result = {}
    for name in args.experiments:
        seeds = curves(name)
        result[name] = {seed: reached(curve, args.level) for seed, curve in seeds.items()}
        for axis, (key, _, unit) in zip(panels, AXES, strict=True):
            draw(axis, name, list(seeds.values()), key, unit)
    for axis, (_, label, _) in zip(panels, AXES, strict=True):
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
