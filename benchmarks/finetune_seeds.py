"""An experiment's fine-tuning over several seeds from one base, beside that base.

    python benchmarks/finetune_seeds.py lift_dppo --base runs/demo/pretrain --stop-at 0.96 \
        --out benchmarks/lift_dppo

Every seed runs configs/experiment/<NAME>.yaml from the base; which checkpoint counts is decided on
initial states from seed 500. Base and tuned policies are then evaluated on the same initial
states from seed 1000. What is finished is kept, so the script can be stopped and called again.

Writes OUT.json (success with Wilson 95 % intervals, or return with bootstrap ones; per seed the
difference to the base, paired by initial state, and the mean of these with Student's interval),
OUT.csv (learning curves: evaluations during training) and OUT.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from common import curve, evaluated, machine, mean_interval, rows, save, side_by_side, trained

from genpolicy.evaluate.statistics import bootstrap

SEED0, SELECTION_SEED0 = 1000, 500


def columns(score: str) -> list[str]:
    """What an evaluation says of the score: its value, lower and upper end."""
    value = {"success": "success_rate", "return": "return_mean"}[score]
    return [value, f"{score}_lo", f"{score}_hi"]


def train(args: argparse.Namespace, seed: int) -> None:
    """Train and evaluate one seed."""
    run = args.folder / str(seed)
    stop = [] if args.stop_at is None else [f"stop_at={args.stop_at}"]
    init = [] if args.scratch else [f"init={args.base}"]
    trained(
        run, args.folder / f"{seed}_done", f"experiment={args.experiment}", *init,
        f"seed={seed}", f"seed0={SELECTION_SEED0}", *stop, *args.extra,
    )  # fmt: skip
    evaluated(run, args.folder / f"{seed}_eval", args.episodes, SEED0)


def paired(tuned: dict[str, Any], base: dict[str, Any], key: str) -> dict[str, float]:
    """Mean difference over the initial states, with its bootstrap 95 % interval."""
    difference = np.array(tuned[key], float) - np.array(base[key], float)
    low, high = bootstrap(difference)
    return {"mean": float(difference.mean()), "lo": low, "hi": high}


def summary(folder: Path, seed: int, base: dict[str, Any]) -> dict[str, Any]:
    """One finished seed: its score, what it gained, and what it took."""
    result = json.loads((folder / f"{seed}_eval/eval.json").read_text())
    last = rows(folder / str(seed))[-1]
    lists = {"success": "success", "return": "returns"}
    return {
        "seed": seed,
        **{key: result[key] for key in columns(base["score"])},
        "minus_base": paired(result, base, lists[base["score"]]),
        "env_steps": int(float(last["step/env"])),
        "wall_s": round(float(last["step/wall_s"]), 1),
    }


def write_curves(folder: Path, seeds: list[int], out: Path, base: dict[str, Any]) -> None:
    """Evaluations during training: one CSV for all seeds, and their picture."""
    value = columns(base["score"])
    keys = ["step/env", "step/wall_s", *(f"eval/{name}" for name in value)]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    with out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", *keys])
        for seed in seeds:
            points = curve(folder / str(seed))
            writer.writerows([seed, *(row[key] for key in keys)] for row in points)
            x_y = np.array([[float(row[key]) for key in keys[:3]] for row in points])
            for axis, x in zip(axes, (x_y[:, 0] / 1e6, x_y[:, 1] / 60), strict=True):
                axis.plot(x, x_y[:, 2], label=f"seed {seed}")
    for axis, label in zip(axes, ("env steps, millions", "minutes"), strict=True):
        axis.axhline(base[value[0]], color="0.5", linestyle="--", label="imitation (base)")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(base["score"])
    axes[0].set_ylim(0, 1.02 if base["score"] == "success" else None)
    axes[0].legend(loc="lower right")
    figure.savefig(out.with_suffix(".png"), dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", help="a name in configs/experiment")
    parser.add_argument("--base", type=Path, required=True, help="checkpoint to start from")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="of the runs; default runs/seeds/EXPERIMENT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1000, 1001, 1002])
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument(
        "--scratch", action="store_true", help="train without the base, which is only evaluated"
    )
    parser.add_argument("--stop-at", type=float, help="score at which training ends")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--extra", nargs="*", default=[], help="further overrides of all runs")
    args = parser.parse_args()
    args.folder = args.folder or Path("runs/seeds") / args.experiment
    args.folder.mkdir(parents=True, exist_ok=True)
    side_by_side(train, args.jobs, [(args, seed) for seed in args.seeds])
    base = evaluated(args.base, args.folder / "base_eval", args.episodes, SEED0)
    runs = [summary(args.folder, seed, base) for seed in args.seeds]
    result = {
        "experiment": args.experiment,
        "overrides": args.extra,
        "episodes": args.episodes,
        "seed0": SEED0,
        "base": {key: base[key] for key in columns(base["score"])},
        "runs": runs,
        "minus_base_over_seeds": mean_interval([run["minus_base"]["mean"] for run in runs], 3),
        "machine": machine(),
    }
    write_curves(args.folder, args.seeds, args.out, base)
    save(result, args.out.with_suffix(".json"))


if __name__ == "__main__":
    main()
