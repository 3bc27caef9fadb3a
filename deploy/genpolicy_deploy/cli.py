"""The command ``genpolicy-deploy``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
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
from genpolicy_deploy.run import INTERRUPTED, OK, Run, RunOptions, versions
from genpolicy_deploy.simulate import names as simulate_names
from genpolicy_deploy.simulate import simulate
from genpolicy_deploy.teleop import Teleop, TeleopOptions

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
    run = Run(
        RunOptions(
            path=args.controller,
            robot=args.robot,
            robot_config=args.robot_config,
            seconds=args.seconds,
            episodes=args.episodes,
            seed=args.seed,
            num_samples=args.num_samples,
            temperature=args.temperature,
            handover=args.handover,
            log=args.log,
            realtime=not args.no_realtime,
            estop=args.estop,
            leader=args.leader,
        ),
        on_progress=_say,
    )
    run.execute()
    result = run.result()
    print(tables.run_table(result))
    if run.fault:
        print(f"genpolicy-deploy: {run.fault}", file=sys.stderr)
    return run.exit_code, result


def _teleop(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    session = Teleop(
        TeleopOptions(
            leader=args.leader,
            log=args.log,
            robot=args.robot,
            robot_config=args.robot_config,
            task=args.task,
            control_hz=args.hz,
            max_steps=args.max_steps,
            episodes=args.episodes,
            seed=args.seed,
            realtime=not args.no_realtime,
            estop=args.estop,
        ),
        on_progress=_say,
    )
    session.execute()
    result = session.result()
    print(
        f"{len(result['episodes'])} episodes, {result['successes']} of them successes: {args.log}"
    )
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
    verbs = parser.add_subparsers(
        required=True, metavar="{run,teleop,bench,inspect,replay,report,doctor,simulate}"
    )

    verb = verbs.add_parser("run", parents=[common], help="drive a robot", description=NOTICE)
    verb.set_defaults(command=_run)
    verb.add_argument("controller", type=Path, help="file written by `genpolicy export`")
    verb.add_argument("--robot", default="mujoco", help=f"one of: {', '.join(robots.names())}")
    verb.add_argument("--robot-config", type=Path, metavar="TOML", help="wiring and limits")
    verb.add_argument("--seconds", type=float, default=20.0, help="duration (default 20)")
    verb.add_argument("--episodes", type=int, help="run so many whole episodes instead")
    verb.add_argument("--seed", type=int, default=0, help="of the first episode (default 0)")
    _add_sampling(verb)
    verb.add_argument(
        "--handover",
        default="sync",
        choices=MODES,
        help="sync (default): wait for each chunk; async: move on meanwhile; ensemble: average",
    )
    verb.add_argument("--log", type=Path, metavar="FILE", help="record a flight log (a new file)")
    verb.add_argument("--leader", help=f"a person may take over by it: {LEADERS}")
    _add_safety(verb)

    text = "Drive a robot yourself, and record demonstrations for `genpolicy convert`."
    verb = verbs.add_parser("teleop", parents=[common], help="demonstrate", description=text)
    verb.set_defaults(command=_teleop)
    verb.add_argument("--leader", required=True, help=LEADERS)
    verb.add_argument("--log", type=Path, required=True, metavar="FILE", help="a new file")
    verb.add_argument("--robot", default="mujoco", help=f"one of: {', '.join(robots.names())}")
    verb.add_argument("--robot-config", type=Path, metavar="TOML", help="wiring and limits")
    verb.add_argument("--task", default="lift", help="what the demonstrations are of")
    verb.add_argument("--hz", type=float, default=20.0, help="control steps per second (20)")
    verb.add_argument("--max-steps", type=int, default=1000, help="of an episode (1000)")
    verb.add_argument("--episodes", type=int, help="end after so many (default: key q)")
    verb.add_argument("--seed", type=int, default=0, help="of the first episode (default 0)")
    _add_safety(verb)

    text = "Measure the loop's punctuality beside inference, without a robot."
    verb = verbs.add_parser(
        "bench", parents=[common], help="measure this machine", description=text
    )
    verb.set_defaults(command=_bench)
    verb.add_argument("controller", type=Path)
    verb.add_argument("--seconds", type=float, default=60.0, help="of the main phase (default 60)")
    verb.add_argument("--hz", type=float, default=500.0, help="ticks per second (default 500)")

    text = "Show the contract of a controller and check its golden pair."
    verb = verbs.add_parser("inspect", parents=[common], help="what a file is", description=text)
    verb.set_defaults(command=_inspect)
    verb.add_argument("controller", type=Path)

    text = "Run the controller on a log's observations and seeds; exit 1 if it acts differently."
    verb = verbs.add_parser("replay", parents=[common], help="re-run a log", description=text)
    verb.set_defaults(command=_replay)
    verb.add_argument("log", type=Path)
    verb.add_argument("--controller", type=Path, help="if the file has moved")

    text = "Show a log as one HTML page: commands against limits, latencies, hand-overs, events."
    verb = verbs.add_parser("report", parents=[common], help="a page of a log", description=text)
    verb.set_defaults(command=_report)
    verb.add_argument("log", type=Path)
    verb.add_argument("--out", type=Path, metavar="HTML", help="default: beside the log")

    text = "What this robot computer permits a real-time loop, and how to grant what it does not."
    verb = verbs.add_parser(
        "doctor", parents=[common], help="check this computer", description=text
    )
    verb.set_defaults(command=_doctor)

    text = "Start a simulated arm that speaks a real arm's protocol, to run a robot against."
    verb = verbs.add_parser("simulate", parents=[common], help="be an arm", description=text)
    verb.set_defaults(command=_simulate)
    verb.add_argument("arm", help=f"one of: {', '.join(simulate_names())}")
    text = "send what the task Lift observes of its cube to this UDP port"
    verb.add_argument("--objects", type=int, metavar="PORT", help=text)
    verb.add_argument("--seed", type=int, help="episode of Lift where it starts")
    return parser


def _add_safety(verb: argparse.ArgumentParser) -> None:
    text = "stop as soon as this file exists (as the space bar, escape and SIGUSR1 do)"
    verb.add_argument("--estop", type=Path, metavar="FILE", help=text)
    verb.add_argument("--no-realtime", action="store_true", help="ask for no scheduling priority")


def _add_sampling(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--num-samples", type=int, metavar="K", help="chunks to choose from (V-GPS)")
    verb.add_argument(
        "--temperature", type=float, metavar="T", help="of the choice; 0 takes the best score"
    )


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
