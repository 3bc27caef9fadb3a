"""Return against environment steps and seconds, from scratch: every method beside PPO.

    python benchmarks/rl_tasks.py --env-steps 500000 --out benchmarks/rl_tasks
    python benchmarks/rl_tasks.py --folder runs/gorl --out benchmarks/gorl_hopper_stand \
        --env-steps 2000000 --tasks hopper_stand \
        --methods ppo fpo gorl gorl_diffusion ppo_prior ppo_entropy
    python benchmarks/rl_tasks.py --folder runs/gorl --out benchmarks/gorl_tasks \
        --env-steps 1000000 --tasks finger_spin cheetah_run walker_walk --methods ppo gorl

Every method trains on every task with every seed for the same number of environment steps, those
of the data for GoRL's decoders included, with the hyperparameters of
configs/experiment/scratch_<method>.yaml (VARIANTS says what differs from one of them; GoRL's
stages are thirds of a run), chosen on seeds from 100. They are the same for all tasks but for
GoRL's penalty (PRIOR). What counts is the last checkpoint, no choice among checkpoints, evaluated
on the same initial states for all. A run that is finished is kept, so the script can be stopped
and called again. ``--summary`` writes the tables from what is there.

Writes OUT.json (final returns; means over tasks per seed; differences to PPO paired by seed),
OUT.csv (learning curves, evaluations during training) and OUT.png.
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
from common import curve, evaluated, machine, mean_interval, save, side_by_side, trained

TASKS = ("cartpole_balance", "cheetah_run", "finger_spin", "reacher_easy")
METHODS = ("ppo", "fpo", "fpo_plus", "dppo", "reinflow")
ONE_STAGE = "algo.stages=[]"
VARIANTS = {
    "ppo_entropy": ("ppo", "algo.entropy_coef=0.01"),  # as the PPO that GoRL's paper compares with
    "ppo_prior": ("gorl", ONE_STAGE),  # no decoder: what the encoder and its penalty do
    "gorl_fresh_critic": ("gorl", "algo.fresh_critic=true"),
    "gorl_warm_decoder": ("gorl", "algo.fresh_decoder=false"),
    "gorl_same_encoder": ("gorl", "algo.fresh_encoder=false"),
    "gorl_best_half": ("gorl", "algo.refine_keep=0.5"),
    "gorl_l2": ("gorl", "algo.prior=l2", "algo.prior_coef=2.5e-4"),
}
BASELINE = "ppo"
PRIOR = {"finger_spin": ["algo.prior_coef=2e-4"]}  # the one that was chosen per task
EPISODES, SEED0, CURVE_SEED0, CURVE_POINTS = 50, 1000, 500, 10
ROLLOUT = 64 * 64  # environment steps of one iteration: the same for all methods
DECODER_DATA = 128 * 1000  # environment steps of what one decoder of GoRL learns from
CURVE_KEYS = ("step/env", "step/wall_s", "eval/return_mean", "eval/return_lo", "eval/return_hi")


def train(folder: Path, task: str, method: str, seed: int, steps: int, extra: list[str]) -> None:
    """One run, and the evaluation of its last checkpoint; both are kept if they are there."""
    iterations = steps // ROLLOUT
    experiment, *changes = VARIANTS.get(method, (method,))
    if experiment.startswith("gorl"):
        changes = [*PRIOR.get(task, []), *changes]
        if ONE_STAGE not in changes:  # a new decoder after each third
            iterations -= 2 * DECODER_DATA // ROLLOUT
            changes.append(f"algo.stages=[{iterations // 3},{iterations // 3}]")
    trained(
        folder, folder / f"trained_{steps}", f"experiment=scratch_{experiment}",
        f"task={task}", f"seed={seed}", f"iterations={iterations}",
        f"eval_every={max(1, iterations // CURVE_POINTS)}", "episodes=20", f"seed0={CURVE_SEED0}",
        *changes, *extra,
    )  # fmt: skip
    evaluated(folder / "checkpoints/last", folder / f"final_{steps}", EPISODES, SEED0)


def summary(finals: dict[tuple[str, str, int], dict[str, Any]]) -> dict[str, Any]:
    """Per task and method, and over the tasks that every method and seed has finished."""
    tasks, methods = (list(dict.fromkeys(key[part] for key in finals)) for part in (0, 1))
    seeds = sorted({seed for _, _, seed in finals})
    table = {
        task: {
            method: mean_interval(
                [finals[key]["return_mean"] for s in seeds if (key := (task, method, s)) in finals]
            )
            for method in methods
            if any((task, method, s) in finals for s in seeds)
        }
        for task in tasks
    }
    complete = [t for t in tasks if all((t, m, s) in finals for m in methods for s in seeds)]
    over_tasks = {
        m: [float(np.mean([finals[t, m, s]["return_mean"] for t in complete])) for s in seeds]
        for m in methods
        if complete
    }
    paired = {
        m: mean_interval([a - b for a, b in zip(values, over_tasks[BASELINE], strict=True)])
        for m, values in over_tasks.items()
        if m != BASELINE and BASELINE in over_tasks
    }
    return {
        "tasks": table,
        "complete_tasks": complete,
        "mean_over_tasks": {m: mean_interval(v) for m, v in over_tasks.items()},
        f"minus_{BASELINE}_paired_by_seed": paired,
    }


def seconds(folders: dict[tuple[str, str, int], Path]) -> dict[str, float]:
    """Mean training seconds of a run, per method."""
    walls: dict[str, list[float]] = {}
    for (_, method, _), folder in folders.items():
        walls.setdefault(method, []).append(float(curve(folder)[-1]["step/wall_s"]))
    return {method: round(float(np.mean(values)), 1) for method, values in walls.items()}


def ceilings(folders: dict[tuple[str, str, int], Path]) -> dict[str, list[float]]:
    """Of GoRL's runs: the highest return that was seen with each decoder, on the curve's states."""
    highest: dict[str, dict[str, float]] = {}
    for (task, method, seed), folder in folders.items():
        for row in curve(folder):
            if stage := row.get("gorl/stage"):
                run = highest.setdefault(f"{task}/{method}/s{seed}", {})
                run[stage] = max(run.get(stage, 0.0), round(float(row["eval/return_mean"]), 1))
    return {run: list(stages.values()) for run, stages in highest.items() if len(stages) > 1}


def write_csv(folders: dict[tuple[str, str, int], Path], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "method", "seed", *CURVE_KEYS])
        for key, folder in sorted(folders.items()):
            writer.writerows([*key, *(row[k] for k in CURVE_KEYS)] for row in curve(folder))


def draw(folders: dict[tuple[str, str, int], Path], path: Path) -> None:
    """A column per task; above against environment steps, below against seconds."""
    tasks, methods = (list(dict.fromkeys(key[part] for key in folders)) for part in (0, 1))
    figure, axes = plt.subplots(
        2, len(tasks), figsize=(2.7 * len(tasks) + 1.5, 5), sharey="col", layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for column, task in enumerate(tasks):
        for number, method in enumerate(methods):
            runs = [curve(f) for (t, m, _), f in folders.items() if (t, m) == (task, method)]
            if not runs:
                continue
            shortest = min(map(len, runs))
            data = np.array(
                [[[float(r[k]) for k in CURVE_KEYS[:3]] for r in run[:shortest]] for run in runs]
            )
            steps, wall, value = data.mean(0).T
            for axis, x in ((axes[0, column], steps / 1e6), (axes[1, column], wall)):
                axis.plot(x, value, color=f"C{number}", label=method, lw=1.5)
                low, high = data[:, :, 2].min(0), data[:, :, 2].max(0)
                axis.fill_between(x, low, high, color=f"C{number}", alpha=0.15, lw=0)
                axis.grid(alpha=0.3)
        axes[0, column].set(title=task, xlabel="env steps, millions")
        axes[1, column].set(xlabel="seconds")
    axes[0, 0].set_ylabel("return (mean; band: all seeds)")
    axes[1, 0].set_ylabel("return")
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/rl_tasks"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1000, 1001, 1002])
    parser.add_argument("--env-steps", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--summary", action="store_true", help="train nothing")
    parser.add_argument("--extra", nargs="*", default=[], help="further overrides of all runs")
    args = parser.parse_args()
    # Seeds outermost: wherever it is stopped, what is there is complete for the first seeds.
    keys = [(t, m, s) for s in args.seeds for t in args.tasks for m in args.methods]
    folders = {key: args.folder / key[0] / key[1] / f"s{key[2]}" for key in keys}
    if not args.summary:
        runs = [(folder, *key, args.env_steps, args.extra) for key, folder in folders.items()]
        side_by_side(train, args.jobs, runs)
    final = f"final_{args.env_steps}/eval.json"
    folders = {k: f for k, f in folders.items() if (f / final).exists()}
    finals = {k: json.loads((f / final).read_text()) for k, f in folders.items()}
    result = {
        "env_steps": args.env_steps,
        "episodes": EPISODES,
        "seed0": SEED0,
        **summary(finals),
        "seconds": seconds(folders),
        "best_return_of_each_stage": ceilings(folders),
        "machine": machine(),
    }
    write_csv(folders, args.out.with_suffix(".csv"))
    draw(folders, args.out.with_suffix(".png"))
    save(result, args.out.with_suffix(".json"))


if __name__ == "__main__":
    main()
