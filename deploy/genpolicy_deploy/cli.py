"""The command ``genpolicy-deploy``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from genpolicy.spec import GenpolicyError
from genpolicy_deploy import robots, tables
from genpolicy_deploy.bench import bench
from genpolicy_deploy.controller import Controller
from genpolicy_deploy.doctor import doctor, report
from genpolicy_deploy.handover import MODES
from genpolicy_deploy.replay import replay
from genpolicy_deploy.report import write_report
from genpolicy_deploy.run import Run, RunOptions
from genpolicy_deploy.session import INTERRUPTED, OK, Session, SessionOptions, versions
from genpolicy_deploy.simulate import names as simulate_names
from genpolicy_deploy.simulate import simulate
from genpolicy_deploy.teleop import Teleop, TeleopOptions

Command = Callable[[argparse.Namespace], tuple[int, dict[str, Any]]]

BAD_INPUT, DIFFERENT = 2, 1
NOTICE = (
    "The limits and watchdogs are software good practice, not a certified safety function "
    "(ISO 10218, ISO 13849): keep a hardware emergency stop within reach."
)
LEADERS = "keyboard, gamepad, gamepad:/dev/input/js1, arm:LEADER.toml"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: 0 done, 1 replay differs, 2 bad input, 3 stopped by a fault, 130 Ctrl-C."""
    args = _parser().parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        if args.json is not None and args.json.exists():
            raise GenpolicyError(f"{args.json}: exists already; choose another --json file")
        code, result = args.command(args)
        if args.json is not None:
            _write_json(args.json, result)
    except GenpolicyError as error:
        if args.debug:
            traceback.print_exc()
        print(f"genpolicy-deploy: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("genpolicy-deploy: interrupted", file=sys.stderr)
        return INTERRUPTED
    return code


def _run(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    run = Run(RunOptions(**_given(RunOptions, args)), on_progress=_say)
    return _drive(run, tables.run_table)


def _teleop(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    teleop = Teleop(TeleopOptions(**_given(TeleopOptions, args)), on_progress=_say)
    return _drive(teleop, tables.teleop_line)


def _given(options: type[SessionOptions], args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that make ``options``: they have the names of its fields."""
    return {field.name: getattr(args, field.name) for field in fields(options)}


def _drive(session: Session, text: Callable[[dict[str, Any]], str]) -> tuple[int, dict[str, Any]]:
    session.execute()
    result = session.result()
    print(text(result))
    if session.fault:
        print(f"genpolicy-deploy: {session.fault}", file=sys.stderr)
    return session.exit_code, result


def _bench(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    if not args.seconds > 0 or not 1 <= args.hz <= 10000:
        raise GenpolicyError("bench needs --seconds above 0 and --hz from 1 to 10000")
    result = bench(args.controller, args.seconds, args.hz, on_progress=_say)
    print(tables.bench_table(result))
    return OK, result


def _inspect(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    contract = Controller(args.controller).contract
    result = json.loads(contract.to_json())
    del result["golden"]  # bytes; that it holds is what loading has just checked
    result["golden_pair"] = "reproduced"
    print(tables.contract_table(str(args.controller), contract))
    return OK, result | {"controller": str(args.controller), "reader": versions()}


def _report(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    out = args.out or args.log.with_suffix(".html")
    write_report(args.log, out)
    print(out)
    return OK, {"log": str(args.log), "report": str(out)}


def _replay(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    outcome = replay(args.log, args.controller)
    result = asdict(outcome) | {"passed": outcome.passed, "log": str(args.log)}
    print(tables.replay_table(result))
    return (OK if outcome.passed else DIFFERENT), result


def _doctor(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    checks = doctor()
    print(report(checks))
    return OK, {"checks": [check._asdict() | {"state": check.state} for check in checks]}


def _simulate(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    simulate(args.arm, args.objects, args.seed)
    return OK, {"arm": args.arm}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="genpolicy-deploy",
        description=f"Run an exported controller (.onnx) on a robot, in real time. {NOTICE}",
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    common.add_argument("--debug", action="store_true", help="show tracebacks")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def add(name: str, command: Command, text: str, description: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, parents=[common], help=text, description=description)
        verb.set_defaults(command=command)
        return verb

    _add_run(add("run", _run, "drive a robot", NOTICE))
    text = "Drive a robot yourself, and record demonstrations for `genpolicy convert`."
    _add_teleop(add("teleop", _teleop, "demonstrate", text))
    text = "Measure the loop's punctuality beside inference, without a robot."
    _add_bench(add("bench", _bench, "measure this machine", text))
    text = "Show the contract of a controller and check its golden pair."
    add("inspect", _inspect, "what a file is", text).add_argument("controller", type=Path)
    text = "Run the controller on a log's observations and seeds; exit 1 if it acts differently."
    _add_replay(add("replay", _replay, "re-run a log", text))
    text = "Show a log as one HTML page: commands against limits, latencies, hand-overs, events."
    _add_report(add("report", _report, "a page of a log", text))
    text = "What this robot computer permits a real-time loop, and how to grant what it does not."
    add("doctor", _doctor, "check this computer", text)
    text = "Start a simulated arm that speaks a real arm's protocol, to run a robot against."
    _add_simulate(add("simulate", _simulate, "be an arm", text))
    return parser


def _add_run(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "path", metavar="controller", type=Path, help="file written by `genpolicy export`"
    )
    verb.add_argument("--seconds", type=float, default=20.0, help="duration (default 20)")
    verb.add_argument("--episodes", type=int, help="run so many whole episodes instead")
    verb.add_argument("--num-samples", type=int, metavar="K", help="chunks to choose from (V-GPS)")
    text = "of the choice; 0 takes the best score"
    verb.add_argument("--temperature", type=float, metavar="T", help=text)
    text = "sync (default): wait for each chunk; async: move on meanwhile; ensemble: average"
    verb.add_argument("--handover", default="sync", choices=MODES, help=text)
    verb.add_argument("--log", type=Path, metavar="FILE", help="record a flight log (a new file)")
    verb.add_argument("--leader", help=f"a person may take over by it: {LEADERS}")
    _add_robot(verb)


def _add_teleop(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--leader", required=True, help=LEADERS)
    verb.add_argument("--log", type=Path, required=True, metavar="FILE", help="a new file")
    verb.add_argument("--task", default="lift", help="what the demonstrations are of")
    text = "control steps per second (20)"
    verb.add_argument("--hz", dest="control_hz", type=float, default=20.0, help=text)
    verb.add_argument("--max-steps", type=int, default=1000, help="of an episode (1000)")
    verb.add_argument("--episodes", type=int, help="end after so many (default: key q)")
    _add_robot(verb)


def _add_robot(verb: argparse.ArgumentParser) -> None:
    """What ``SessionOptions`` holds."""
    verb.add_argument("--robot", default="mujoco", help=f"one of: {', '.join(robots.names())}")
    verb.add_argument("--robot-config", type=Path, metavar="TOML", help="wiring and limits")
    verb.add_argument("--seed", type=int, default=0, help="of the first episode (default 0)")
    text = "stop as soon as this file exists (as the space bar, escape and SIGUSR1 do)"
    verb.add_argument("--estop", type=Path, metavar="FILE", help=text)
    text = "ask for no scheduling priority"
    verb.add_argument("--no-realtime", dest="realtime", action="store_false", help=text)


def _add_bench(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("controller", type=Path)
    verb.add_argument("--seconds", type=float, default=60.0, help="of the main phase (default 60)")
    verb.add_argument("--hz", type=float, default=500.0, help="ticks per second (default 500)")


def _add_replay(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("log", type=Path)
    verb.add_argument("--controller", type=Path, help="if the file has moved")


def _add_report(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("log", type=Path)
    verb.add_argument("--out", type=Path, metavar="HTML", help="default: beside the log")


def _add_simulate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("arm", help=f"one of: {', '.join(simulate_names())}")
    text = "send what the task Lift observes of its cube to this UDP port"
    verb.add_argument("--objects", type=int, metavar="PORT", help=text)
    verb.add_argument("--seed", type=int, help="episode of Lift where it starts")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _write_json(path: Path, result: dict[str, Any]) -> None:
    """Aside, flushed, renamed: a reader never sees half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise GenpolicyError(f"{path}: cannot be written ({error.strerror})") from error
