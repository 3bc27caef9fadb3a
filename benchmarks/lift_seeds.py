"""DPPO on Panda Lift over several seeds, from the base of one finished demo.

    genpolicy demo run_dir=runs/demo
    python benchmarks/lift_seeds.py runs/demo --out benchmarks/lift_dppo

Seed 0 is the demo's own fine-tuning; the other seeds run the same command from the same base (a run
that is finished is kept) and are evaluated as the demo evaluates, with 300 episodes from seed 1000.
Writes OUT.json (success with Wilson 95 % intervals, env steps, seconds), OUT.csv (learning
curves) and OUT.png. Which checkpoint counts is decided on seeds 500 to 699, never on these.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from genpolicy.runs.environment import describe

EPISODES, SEED0, SELECTION_SEED0 = 300, 1000, 500


def genpolicy(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "genpolicy.cli", *arguments], check=True)


def finetune(base: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Train and evaluate one seed."""
    result = folder.with_name(folder.name + "_eval")
    if not result.exists():
        genpolicy(
            "finetune", "experiment=lift_dppo", f"init={base}", f"run_dir={folder}",
            f"seed={seed}", f"seed0={SELECTION_SEED0}", "stop_at=0.96",
        )  # fmt: skip
        genpolicy(
            "eval", f"checkpoint={folder}", f"episodes={EPISODES}", f"seed0={SEED0}",
            f"run_dir={result}", "videos=0",
        )  # fmt: skip
    return summary(seed, folder, result)


def summary(seed: int, folder: Path, result: Path) -> dict[str, Any]:
    """Success of a finished run, and what it took."""
    last = curve(folder)[-1]
    return {
        "seed": seed,
        **interval(result / "eval.json"),
        "env_steps": int(float(last["step/env"])),
        "wall_s": round(float(last["step/wall_s"]), 1),
    }


def interval(path: Path) -> dict[str, Any]:
    """The success of an ``eval.json``."""
    keys = ("success_rate", "success_lo", "success_hi", "episodes", "seed0")
    data = json.loads(path.read_text())
    return {key: data[key] for key in keys}


def curve(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's ``metrics.csv``."""
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def write_curves(folders: dict[int, Path], out: Path, base_rate: float) -> None:
    """Evaluations during training: one CSV for all seeds, and their picture."""
    keys = ["step/env", "step/wall_s", "eval/success_rate", "eval/success_lo", "eval/success_hi"]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    with out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", *keys])
        for seed, folder in folders.items():
            rows = [r for r in curve(folder) if r["eval/success_rate"]]
            writer.writerows([seed, *(row[key] for key in keys)] for row in rows)
            rate = [float(row["eval/success_rate"]) for row in rows]
            for axis, key, scale in zip(axes, keys, (1e3, 1.0), strict=False):
                axis.plot([float(r[key]) / scale for r in rows], rate, label=f"seed {seed}")
    for axis, label in zip(axes, ("env steps, thousands", "seconds"), strict=True):
        axis.axhline(base_rate, color="0.5", linestyle="--", label="imitation (base)")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("success (200 episodes)")
    axes[0].set_ylim(0, 1.02)
    axes[0].legend(loc="lower right")
    figure.savefig(out.with_suffix(".png"), dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="run folder of a finished genpolicy demo")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="besides the demo's")
    args = parser.parse_args()
    base = args.demo / "pretrain/checkpoints/last"
    own = {0: args.demo / "finetune"}
    others = {seed: args.demo / f"seeds/{seed}" for seed in args.seeds}
    runs = [summary(0, own[0], args.demo / "eval_finetuned")]
    runs += [finetune(base, folder, seed) for seed, folder in others.items()]
    stages = ("pretrained", "reference", "pretrained_reranked")
    baseline = {stage: interval(args.demo / f"eval_{stage}" / "eval.json") for stage in stages}
    write_curves(own | others, args.out, baseline["pretrained"]["success_rate"])
    result = {"baselines": baseline, "dppo": runs, "machine": describe()}
    args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
