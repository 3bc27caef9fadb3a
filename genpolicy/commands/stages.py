"""Stages of a long job: each is finished once, and an interrupted job goes on where it was."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genpolicy.commands.compose import compose
from genpolicy.commands.launch import launch
from genpolicy.runs.files import read_json, write_json
from genpolicy.runs.progress import say
from genpolicy.spec import GenpolicyError

RESULT = "result.json"  # written last: a stage that has it is finished
SPENT = "spent.json"  # seconds of a stage that was interrupted
RESUMABLE = ("pretrain", "finetune", "value")
ROBOT_STOPS_S = 30.0  # how long an interrupted deployment may take to stop its robot


@dataclass(frozen=True)
class Stage:
    """One command of the job.

    Attributes:
        folder: Its own; it is emptied when the stage has to be done again.
        title: What it is, for people.
        command: What one would type in a shell, word by word.
        summary: Reads what came out, in a few words.
        products: Files that it writes outside its folder.
    """

    folder: Path
    title: str
    command: tuple[str, ...]
    summary: Callable[[], str]
    products: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """Short name."""
        return self.folder.name

    @property
    def shell(self) -> str:
        """The command for a shell."""
        return shlex.join(self.command)

    @property
    def result(self) -> dict[str, Any] | None:
        """What it left when it finished."""
        path = self.folder / RESULT
        return read_json(path) if path.exists() else None


def check(stages: Sequence[Stage]) -> None:
    """Compose every command before the first one runs.

    Raises:
        GenpolicyError: one of them would be refused.
    """
    for stage in stages:
        program, verb, *overrides = stage.command
        if program == "genpolicy":
            compose(verb, overrides)


def run_stages(stages: Sequence[Stage]) -> None:
    """Run those that are not finished, in order.

    Raises:
        GenpolicyError: one of them failed; those before it stay finished.
    """
    for number, stage in enumerate(stages, 1):
        head = f"[{number}/{len(stages)}] {stage.title}"
        if (result := stage.result) is not None:
            say(f"{head}: done before, {clock(result['seconds'])}: {result['summary']}")
            continue
        say(f"{head}\n    {stage.shell}")
        try:
            result = run_stage(stage)
        except GenpolicyError as error:
            raise GenpolicyError(f"{stage.name}: {error}") from error
        say(f"    {clock(result['seconds'])}: {result['summary']}")


def run_stage(stage: Stage) -> dict[str, Any]:
    """Run one stage, or let an interrupted training go on; returns its ``result``."""
    before = _prepare(stage)
    started = time.monotonic()
    try:
        _execute(stage)
    except BaseException:
        spent = before + time.monotonic() - started
        write_json(stage.folder / SPENT, {"seconds": spent})
        raise
    result = {
        "command": stage.shell,
        "seconds": before + time.monotonic() - started,
        "summary": stage.summary(),
    }
    write_json(stage.folder / RESULT, result)
    return result


def _resumes(stage: Stage) -> bool:
    started = (stage.folder / "checkpoints" / "last").is_file()
    return stage.command[1] in RESUMABLE and started


def _prepare(stage: Stage) -> float:
    """Clear what cannot go on; returns the seconds that already went into what can."""
    if _resumes(stage):
        spent = stage.folder / SPENT
        return float(read_json(spent)["seconds"]) if spent.exists() else 0.0
    shutil.rmtree(stage.folder, ignore_errors=True)
    for path in stage.products:
        path.unlink(missing_ok=True)
    stage.folder.mkdir(parents=True)
    return 0.0


def _execute(stage: Stage) -> None:
    program, verb, *arguments = stage.command
    if program == "genpolicy":
        launch(verb, [f"resume={quoted(stage.folder)}"] if _resumes(stage) else arguments)
    else:
        _spawn([sys.executable, "-m", "genpolicy_deploy", verb, *arguments])


def _spawn(command: list[str]) -> None:
    """Run a process; when we are interrupted it gets the time to stop its robot.

    Raises:
        GenpolicyError: it failed.
    """
    process = subprocess.Popen(command)
    try:
        code = process.wait()
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.wait(ROBOT_STOPS_S)
        raise
    if code != 0:
        raise GenpolicyError(f"{shlex.join(command[2:])} ended with exit code {code}")


def quoted(path: Path) -> str:
    """A path as a value in Hydra's override grammar."""
    text = str(path)
    if re.fullmatch(r"[\w/.-]+", text, re.ASCII):
        return text
    # Backslashes are literal, except before a quote.
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + (m[2] and "\\'"), text)
    return f"'{escaped}'"


def clock(seconds: float) -> str:
    """Minutes and seconds, ``12:03``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
