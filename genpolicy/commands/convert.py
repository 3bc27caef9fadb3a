"""Flight logs of a robot as a robomimic HDF5 file: for pretrain, value and finetune.

Examples:
    genpolicy convert run1.mcap run2.mcap out=robot.hdf5
    genpolicy convert run1.mcap out=all.hdf5 only=all
    genpolicy convert run1.mcap out=judged.hdf5 succeeded=[0,2]

Actions are those that were executed, a policy's or a person's; `interventions` in the file tells
them apart. Rewards are 1 where the task was achieved and 0 elsewhere. Where the robot held, an
episode is cut in two.

Keys:
  out        The HDF5 file to write; must not exist. [required]
  only       success (demonstrations), or all (value learning needs failures too). [success]
  succeeded  Episodes of the one log that a person judged successes, for robots that cannot
             tell; null for what the robot observed. [null]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genpolicy_deploy.flight_log import FlightLog, read_log

from genpolicy.commands.collect import env_args
from genpolicy.commands.convert_log import Logged, episodes_of
from genpolicy.data.robomimic_writer import RobomimicWriter
from genpolicy.runs.files import refuse_existing
from genpolicy.runs.progress import say
from genpolicy.spec import GenpolicyError, PolicySpec, TaskSpec

KEYS = ("out", "only", "succeeded")


@dataclass(frozen=True)
class Convert:
    """What the command line says."""

    logs: list[Path]
    out: Path
    only: str
    succeeded: list[int] | None


def run(arguments: Sequence[str]) -> int:
    """Convert and write."""
    config = parse(arguments)
    refuse_existing(config.out, "out")
    logs = [read_log(path) for path in config.logs]
    task = _task(config.logs, logs)
    episodes = [logged for log in logs for logged in episodes_of(log, task, config.succeeded)]
    if config.succeeded is not None:
        _check_numbers(config, episodes)
    kept = [e for e in episodes if e.pieces and (e.success or config.only == "all")]
    if not kept:
        raise GenpolicyError(
            f"{config.logs[0]}: {len(episodes)} episodes, none of which succeeded: convert them "
            "with only=all, or say which did with succeeded=[0,2]"
        )
    with RobomimicWriter(config.out, env_args(task), task) as writer:
        for episode in kept:
            for piece in episode.pieces:
                writer.add(piece)
    say(f"{config.out}: {_summary(kept, episodes)}")
    for path, log in zip(config.logs, logs, strict=True):
        if not log.complete:
            say(f"{path}: not complete, it ends early or has gaps; what it holds was converted.")
    return 0


def parse(arguments: Sequence[str]) -> Convert:
    """The command line.

    Raises:
        GenpolicyError: it names no log or no output, an unknown key, or a value that is none.
    """
    logs, keys = [], {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            logs.append(Path(argument))
        elif key not in KEYS:
            raise GenpolicyError(f"'{key}' is not a key of convert: choose {', '.join(KEYS)}")
        else:
            keys[key] = value
    if not logs or not keys.get("out"):
        raise GenpolicyError("convert needs logs and a file: genpolicy convert LOG... out=F.hdf5")
    only = keys.get("only", "success")
    if only not in ("success", "all"):
        raise GenpolicyError(f"only={only}: choose success or all")
    return Convert(logs, Path(keys["out"]), only, _numbers(keys.get("succeeded", "null"), logs))


def _numbers(text: str, logs: list[Path]) -> list[int] | None:
    try:
        numbers = json.loads(text)
    except json.JSONDecodeError:
        numbers = text
    if numbers is None:
        return None
    if not isinstance(numbers, list) or not all(type(n) is int for n in numbers):
        raise GenpolicyError(f"succeeded={text}: needs a list of episodes, such as [0,2]")
    if len(logs) > 1:
        raise GenpolicyError("succeeded numbers the episodes of one log: convert one at a time")
    return numbers


def _check_numbers(config: Convert, episodes: list[Logged]) -> None:
    known = {episode.number for episode in episodes}
    if unknown := sorted(set(config.succeeded or ()) - known):
        raise GenpolicyError(
            f"{config.logs[0]}: succeeded names episode {unknown[0]}; there are {sorted(known)}"
        )


def _task(paths: list[Path], logs: list[FlightLog]) -> TaskSpec:
    """The task that all logs agree on."""
    tasks = []
    for path, log in zip(paths, logs, strict=True):
        if "spec" not in log.header:
            raise GenpolicyError(f"{path}: the log's header lacks the task: record it with `run`")
        tasks.append(PolicySpec.from_dict(log.header["spec"]).task)
        if tasks[-1] != tasks[0]:
            raise GenpolicyError(
                f"{path}: is of another task than {paths[0]}: convert them into different files"
            )
    return tasks[0]


def _summary(kept: list[Logged], episodes: list[Logged]) -> str:
    pieces = [piece for episode in kept for piece in episode.pieces]
    steps = sum(len(piece) for piece in pieces)
    by_people = sum(int(p.interventions.sum()) for p in pieces if p.interventions is not None)
    successes = sum(episode.success for episode in episodes)
    return (
        f"{len(kept)} of {len(episodes)} episodes ({successes} succeeded) as {len(pieces)} "
        f"demonstrations, {steps} steps, {by_people} of them by a person."
    )
