"""What the flight recorder costs: the loop per tick, and its writer's share of a core at 500 Hz.

    python benchmarks/bench_recorder.py --json benchmarks/recorder.json

The loop's cost is that of putting one tick of an arm with seven joints and a gripper. It is
measured at the loop's own pace and priority, where other programs use the caches between two ticks,
and back to back (``hot``), which is what the work itself takes.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import genpolicy_sim
import numpy as np
from common import machine, save
from genpolicy_deploy.flight_log import read_log
from genpolicy_deploy.histogram import Histogram
from genpolicy_deploy.realtime import Ticker, soft_realtime
from genpolicy_deploy.recorder import Recorder

from genpolicy.spec import PolicySpec

AXES, JOINTS, STEP_TICKS, CHUNK_TICKS = 7, 8, 25, 100
HOT = 2000  # ticks back to back: fewer than the ring holds


def measure(path: Path, seconds: float, hz: float) -> dict[str, Any]:
    """Record ``seconds`` of an invented run."""
    spec = PolicySpec(genpolicy_sim.make("lift").spec, obs_steps=1, chunk=8, exec_steps=4)
    observation = {f.name: np.zeros(f.dim) for f in spec.task.observations}
    moving = np.random.default_rng(0).normal(size=(1000, JOINTS))
    cost, hot, ticker = Histogram(), Histogram(), Ticker(hz)
    limits = {name: [1.0] * AXES for name in ("low", "high", "velocity", "acceleration", "jerk")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    recorder = Recorder(path, spec, AXES, {"limits": limits}, JOINTS)
    with recorder, soft_realtime() as granted:
        for index in range(int(seconds * hz)):
            now = ticker.wait()
            joints = moving[index % 1000]
            vectors = joints[:AXES], joints[:AXES], joints, joints
            cost.add(put(recorder, now, index, vectors))
            if index % STEP_TICKS == 0:
                recorder.observe(observation)
                recorder.step["t_ns"] = now
                recorder.put("step")
            if index % CHUNK_TICKS == 0:
                recorder.chunk["t_ns"] = now
                recorder.put("chunk")
        for index in range(HOT):
            hot.add(put(recorder, now, index, vectors))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "tick_hz": hz,
        "ticks": ticker.ticks,
        "put_us": cost.summary(),
        "put_hot_us": hot.summary(),
        "realtime": granted,
        "writer_core_share": round(used / seconds, 4),  # its start included
        "bytes_per_tick": round(path.stat().st_size / ticker.ticks, 1),
        "complete": read_log(path).complete,
    }


def put(recorder: Recorder, now: int, index: int, vectors: Sequence[np.ndarray]) -> float:
    """One tick; µs."""
    start = time.perf_counter_ns()
    recorder.put_tick(now, index, vectors, (0, index, 0), 80.0, 1200.0, 3)
    return (time.perf_counter_ns() - start) / 1e3


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]  # of others: a busy machine shows in the tail
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder) / "bench.mcap", arguments.seconds, 500.0)
    save(result | {"load_before": round(load, 2)} | machine(), arguments.json)


if __name__ == "__main__":
    main()
