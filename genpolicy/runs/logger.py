"""Metrics out: ``metrics.csv`` always, and Weights & Biases as the monitor."""

from __future__ import annotations

import csv
import io
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from genpolicy.runs import distributed
from genpolicy.runs.files import write_text
from genpolicy.runs.progress import say
from genpolicy.spec import GenpolicyError

WANDB_MODES = ("auto", "online", "offline", "disabled")
STEPS = ("step/env", "step/update", "step/wall_s")


class CsvLog:
    """Rows of a CSV file whose columns may grow; readable after every row."""

    def __init__(self, path: Path, up_to_step: int | None = None) -> None:
        """Start ``path`` anew, or continue it, dropping rows beyond ``up_to_step``."""
        self._path = path
        self._columns: list[str] = []
        if path.exists():
            rows = [r for r in read_csv(path) if r["step/update"] <= (up_to_step or 0)]
            self._columns = list(dict.fromkeys(name for row in rows for name in row))
            self._rewrite(rows)

    def write(self, row: Mapping[str, float]) -> None:
        """Append one row."""
        if new := [name for name in row if name not in self._columns]:
            rows = read_csv(self._path) if self._path.exists() else []
            self._columns += new
            self._rewrite([*rows, row])
            return
        with open(self._path, "a", encoding="utf-8", newline="") as file:
            file.write(self._format([row]))

    def _rewrite(self, rows: list[Mapping[str, float]] | list[dict[str, float]]) -> None:
        header = ",".join(self._columns) + "\n" if self._columns else ""
        write_text(self._path, header + self._format(rows))

    def _format(self, rows: list[Mapping[str, float]] | list[dict[str, float]]) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        writer.writerows(rows)
        return text.getvalue()


def read_csv(path: Path) -> list[dict[str, float]]:
    """Rows of ``metrics.csv`` as numbers, without the cells that are empty."""
    with open(path, encoding="utf-8", newline="") as file:
        return [
            {name: float(cell) for name, cell in row.items() if cell}
            for row in csv.DictReader(file)
        ]


class Logger:
    """Where the loop's metrics go; silent on every rank but the first."""

    def __init__(
        self,
        run_dir: Path,
        config: Mapping[str, Any],
        *,
        mode: str = "auto",
        project: str = "genpolicy",
        entity: str | None = None,
        resume_step: int | None = None,
        x_axis: str = "step/update",
    ) -> None:
        """Open both sinks.

        Args:
            run_dir: the run folder.
            config: the resolved configuration, shown in W&B.
            mode: of W&B: ``auto`` (online where there is a key, else offline), ``online``,
                ``offline``, ``disabled``.
            project: W&B project.
            entity: W&B team, or None for one's own.
            resume_step: iterations done, when an interrupted run goes on.
            x_axis: which counter the curves are drawn over by default.
        """
        self._csv = self._run = None
        if not distributed.is_main():
            return
        self._csv = CsvLog(run_dir / "metrics.csv", resume_step)
        self._run = _start_wandb(run_dir, config, mode, project, entity)
        if self._run is not None:
            _define_axes(self._run, x_axis)

    def log(self, row: Mapping[str, float]) -> None:
        """One row; it must hold ``step/env``, ``step/update`` and ``step/wall_s``."""
        if self._csv is None:
            return
        self._csv.write(row)
        if self._run is not None:
            self._run.log(dict(row))

    def close(self) -> None:
        """Flush and end the W&B run."""
        if self._run is not None:
            import wandb

            self._run.finish()
            # Offline, finish returns before W&B's own process has written the last rows.
            wandb.teardown()
            self._run = None


def wandb_mode(mode: str) -> str:
    """What ``mode`` means here: ``auto`` is online where there is a key, else offline.

    Raises:
        GenpolicyError: an unknown mode.
    """
    if mode not in WANDB_MODES:
        raise GenpolicyError(f"wandb.mode={mode} is unknown; choose one of {list(WANDB_MODES)}")
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_MODE") in WANDB_MODES[1:]:
        return os.environ["WANDB_MODE"]
    return "online" if _has_key() else "offline"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _start_wandb(
    run_dir: Path, config: Mapping[str, Any], mode: str, project: str, entity: str | None
) -> Any:
    mode = wandb_mode(mode)
    if mode == "disabled":
        return None
    import wandb  # a second to import: only where it is used
    from wandb.errors import Error as WandbError

    def start(mode: str) -> Any:
        return wandb.init(
            project=project,
            entity=entity,
            name="-".join(run_dir.parts[-3:]),
            id=_earlier_id(run_dir),
            resume="allow",
            dir=run_dir,
            config=dict(config),
            mode=mode,  # type: ignore[arg-type]
            settings=wandb.Settings(console="off", silent=True),
        )

    try:
        return start(mode)
    except WandbError as error:
        if mode == "offline":
            raise GenpolicyError(f"wandb.mode=offline: {error}; try wandb.mode=disabled") from error
        say(f"W&B cannot be reached ({error}): this run is logged offline, `wandb sync` sends it.")
        return start("offline")


def _define_axes(run: Any, x_axis: str) -> None:
    for name in STEPS:
        run.define_metric(name)
    for group in ("train", "policy", "rollout", "eval", "perf"):
        run.define_metric(f"{group}/*", step_metric=x_axis)


def _earlier_id(run_dir: Path) -> str | None:
    """W&B id of the interrupted run, so that the resumed one continues its curves."""
    folders = sorted((run_dir / "wandb").glob("*run-*-*"))
    return folders[-1].name.rsplit("-", 1)[1] if folders else None
