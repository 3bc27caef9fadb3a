"""Faults of every kind on every driver, injected into real runs, and what came of them.

    python benchmarks/fault_matrix.py --injections 1000 --json benchmarks/fault_matrix.json

A run is ``genpolicy-deploy run`` with a flight log; its arm is a simulated peer at the far end of
the real protocol, led in circles by a puppet (``faults/puppet.py``). At random moments something
fails: the wire, the hardware, a sensor, the policy, the loop, the recorder; or a person stops it.
Each injection is judged by what the peer received and by the log (``faults/judge.py``):

- escapes: a goal at the wire beyond its joint's position, velocity or acceleration limit;
- hangs: the arm was still sent new goals 0.2 s (and the time to brake) after it had to brake, or a
  run neither went on nor ended;
- missing logs: a flight log that cannot be read or does not tell of the fault;
- surprises: a run that ended without need, or otherwise than it may.

Beside the JSON stand a table (.csv, .md) and a picture (.png) of the same name.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from faults.kinds import Kind, kinds
from faults.rig import DRIVERS
from faults.session import Injection, Session
from faults.table import write_tables

GOING_ON = 3
PER_SESSION = 30  # injections, so that sessions can be shared out evenly


def plan(
    drivers: Sequence[str], only: str, injections: int, rng: random.Random
) -> dict[str, list[Kind]]:
    """Which kinds each driver has, in which order: all once, then again, in turn.

    Kinds after which a run goes on come ``GOING_ON`` times as often: they cost no new run.
    """
    wanted = [kind for kind in kinds() if only in f"{kind.layer}: {kind.name}"]
    pairs = [(driver, kind) for kind in wanted for driver in drivers if driver in kind.drivers]
    if not pairs:
        raise SystemExit("fault_matrix: no such kind of fault on these drivers")
    rng.shuffle(pairs)
    cheap = [pair for pair in pairs if not (pair[1].ends or pair[1].cut)]
    round_trip = pairs + cheap * (GOING_ON - 1)
    orders: dict[str, list[Kind]] = {driver: [] for driver in drivers}
    for i in range(injections):
        driver, kind = round_trip[i % len(round_trip)]
        orders[driver].append(kind)
    for order in orders.values():
        rng.shuffle(order)
    return orders


def execute(
    orders: dict[str, list[Kind]], folder: Path, jobs: int, rng: random.Random, until: float
) -> tuple[list[Injection], list[str]]:
    """All sessions, ``jobs`` at a time: what was injected, and why a session broke off."""
    sessions = []
    for driver, order in orders.items():
        for start in range(0, len(order), PER_SESSION):
            number = len(sessions)
            place = folder / f"{driver}-{number}"
            place.mkdir()
            part = order[start : start + PER_SESSION]
            seed = random.Random(rng.random())
            rig = number + os.getpid() % 1000
            sessions.append(Session(driver, part, place, rig, seed, until))
    rng.shuffle(sessions)
    with ThreadPoolExecutor(jobs) as pool:
        done = []
        for session in pool.map(_executed, sessions):
            done += session.done
            print(f"{len(done)} injections", flush=True)
    return done, [session.trouble for session in sessions if session.trouble]


def _executed(session: Session) -> Session:
    session.execute()
    return session


def summary(done: Sequence[Injection]) -> dict[str, Any]:
    """Totals, and a row per kind and driver."""
    rows = []
    for kind in kinds():
        for driver in DRIVERS:
            name = (driver, kind.layer, kind.name)
            own = [i for i in done if (i.driver, i.kind.layer, i.kind.name) == name]
            if own:
                rows.append(_row(driver, kind, own))
    counted = ("injections", "ended", "escapes", "hangs", "missing_logs", "surprises")
    total: dict[str, Any] = {key: sum(row[key] for row in rows) for key in counted}
    return total | {"kinds": len({(r["layer"], r["kind"]) for r in rows}), "rows": rows}


def _row(driver: str, kind: Kind, own: Sequence[Injection]) -> dict[str, Any]:
    reactions = [i.reaction_s for i in own if i.reaction_s is not None]
    notes = [
        f"{i.log} at {i.start:.2f}: {text}"
        for i in own
        for text in (*i.escapes, *i.hangs, *i.missing, *i.surprises)
    ]
    return {
        "driver": driver,
        "layer": kind.layer,
        "kind": kind.name,
        "injections": len(own),
        "ended": sum(i.ended for i in own),
        "escapes": sum(bool(i.escapes) for i in own),
        "hangs": sum(bool(i.hangs) for i in own),
        "missing_logs": sum(bool(i.missing) for i in own),
        "surprises": sum(bool(i.surprises) for i in own),
        "worst_rest_s": round(max(reactions), 3) if reactions else None,
        "notes": sorted(set(notes)),
    }


def main() -> None:
    """Plan, execute, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--injections", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--drivers", nargs="+", choices=DRIVERS, default=DRIVERS)
    parser.add_argument("--only", default="", help="kinds whose layer and name contain this")
    parser.add_argument("--jobs", type=int, default=2, help="arms at a time")
    parser.add_argument("--minutes", type=float, default=60.0, help="then nothing more is begun")
    parser.add_argument("--keep", type=Path, help="folder for logs and configurations")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        until = began + 60.0 * arguments.minutes
        orders = plan(arguments.drivers, arguments.only, arguments.injections, rng)
        done, troubles = execute(orders, folder, arguments.jobs, rng, until)
    result = summary(done) | {
        "not_begun": troubles,
        "seed": arguments.seed,
        "minutes": round((time.monotonic() - began) / 60.0, 1),
        "jobs": arguments.jobs,
        "cpus": os.cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
    }
    print(json.dumps({k: v for k, v in result.items() if k != "rows"}))
    for row in result["rows"]:
        if row["notes"]:
            print(f"{row['driver']}, {row['layer']}: {row['kind']}: {'; '.join(row['notes'])}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
        write_tables(result, arguments.json)


if __name__ == "__main__":
    main()
