"""What the benchmarks share: writing results, and training several seeds."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from genpolicy.runs.environment import describe

# Student's t for the mean of n seeds
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


def save(result: dict[str, Any], path: Path | None) -> None:
    """Print a result; write it where asked."""
    text = json.dumps(result, indent=1)
    print(text)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def machine() -> dict[str, Any]:
    """Where the runs of ``genpolicy`` below were made: on one thread each, whatever this has."""
    return describe() | {"torch_threads": 1}


def genpolicy(*arguments: str) -> None:
    """Run a command of the project on one core and fail with it."""
    command = [sys.executable, "-m", "genpolicy.cli", *arguments, "num_threads=1"]
    environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    subprocess.run(command, check=True, env=os.environ | environment)


def side_by_side(task: Callable[..., Any], jobs: int, items: Iterable[Any]) -> None:
    """``task(*item)`` for all items, ``jobs`` at a time, in their order; fails with the first."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(task, *item) for item in items]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def trained(run: Path, done: Path, *arguments: str) -> None:
    """Fine-tune, or go on where an interrupted run stopped; the file ``done`` says it is over."""
    if done.exists():
        return
    where = "resume" if (run / "checkpoints/last").exists() else "run_dir"
    genpolicy("finetune", f"{where}={run}", "wandb.mode=disabled", *arguments)
    done.touch()


def evaluated(checkpoint: Path, folder: Path, episodes: int, seed0: int) -> dict[str, Any]:
    """The ``eval.json`` of a checkpoint, made in ``folder`` if it is not there yet."""
    if not (folder / "eval.json").exists():
        genpolicy(
            "eval", f"checkpoint={checkpoint}", f"episodes={episodes}", f"seed0={seed0}",
            f"run_dir={folder}", "videos=0",
        )  # fmt: skip
    return json.loads((folder / "eval.json").read_text())


def rows(run: Path) -> list[dict[str, str]]:
    """The rows of a run's ``metrics.csv``."""
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def curve(run: Path) -> list[dict[str, str]]:
    """Those of its rows that hold an evaluation."""
    return [row for row in rows(run) if row.get("eval/episodes")]


def mean_interval(values: list[float], digits: int = 1) -> dict[str, Any]:
    """Mean over up to ten seeds with Student's 95 % interval: the unit is the seed."""
    array, count = np.array(values), len(values)
    half = T_95[count] * float(array.std(ddof=1)) / count**0.5 if count > 1 else None
    return {
        "mean": round(float(array.mean()), digits),
        "half_width_95": None if half is None else round(half, digits),
        "seeds": count,
        "values": [round(v, digits) for v in values],
    }
