"""What the scripts that train several seeds share."""

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

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t for the mean of n seeds


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


def mean_interval(values: list[float], digits: int = 1) -> dict[str, Any]:
    """Mean over seeds with Student's 95 % interval: the unit that is resampled is the seed."""
    array, count = np.array(values), len(values)
    half = T_95.get(count, 1.96) * array.std(ddof=1) / count**0.5 if count > 1 else float("nan")
    return {
        "mean": round(float(array.mean()), digits),
        "half_width_95": round(float(half), digits),
        "seeds": count,
        "values": [round(v, digits) for v in values],
    }
