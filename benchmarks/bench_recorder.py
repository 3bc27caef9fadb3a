"""What the flight recorder costs: the loop per tick, and its writer's share of a core at 500 Hz.

    python benchmarks/bench_recorder.py --json benchmarks/recorder.json

The loop's cost is that of filling and putting one tick of an arm with seven joints and a gripper,
at its real pace: between two ticks other programs use the caches, as they will on a robot.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import genpolicy_sim
import numpy as np
from common import machine, save
from genpolicy_deploy.flight_log import read_log
from genpolicy_deploy.histogram import Histogram
from genpolicy_deploy.realtime import Ticker
from genpolicy_deploy.recorder import Recorder

from genpolicy.spec import PolicySpec

AXES, JOINTS, STEP_TICKS, CHUNK_TICKS = 7, 8, 25, 100


def measure(path: Path, seconds: float, hz: float) -> dict[str, Any]:
    """Record ``seconds`` of an invented run."""
    spec = PolicySpec(genpolicy_sim.make("lift").spec, obs_steps=1, chunk=8, exec_steps=4)
    observation = {f.name: np.zeros(f.dim) for f in spec.task.observations}
    moving = np.random.default_rng(0).normal(size=(1000, JOINTS))
    cost, ticker = Histogram(), Ticker(hz)
    limits = {name: [1.0] * AXES for name in ("low", "high", "velocity", "acceleration", "jerk")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with Recorder(path, spec, AXES, {"limits": limits}, JOINTS) as recorder:
        for index in range(int(seconds * hz)):
            now = ticker.wait()
            joints = moving[index % 1000]
            start = time.perf_counter_ns()
            vectors, counts = (joints[:AXES], joints[:AXES], joints, joints), (0, index, 0)
            recorder.put_tick(now, index, vectors, counts, 80.0, 1200.0, 3)
            cost.add((time.perf_counter_ns() - start) / 1e3)
            if index % STEP_TICKS == 0:
                recorder.observe(observation)
                recorder.step["t_ns"] = now
                recorder.put("step")
            if index % CHUNK_TICKS == 0:
                recorder.chunk["t_ns"] = now
                recorder.put("chunk")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "tick_hz": hz,
        "ticks": ticker.ticks,
        "put_us": cost.summary(),
        "writer_core_share": round(used / seconds, 4),  # its start included
        "bytes_per_tick": round(path.stat().st_size / ticker.ticks, 1),
        "complete": read_log(path).complete,
    }


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
