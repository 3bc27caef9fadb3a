"""Exchanges per second of the Dynamixel driver: one Sync Write and one Sync Read of all servos.

    python benchmarks/bench_bus.py [--json benchmarks/bus.json]

The far end is the simulated bus (``genpolicy_sim.peers.dynamixel``) at a pseudo terminal, which
carries bytes at once: what is measured is the software at both ends. A wire of 1 Mbit/s adds
10 µs per byte, which ``wire_ms`` states.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from genpolicy_deploy.robots import arm_toml, drivers
from genpolicy_deploy.robots.config import load_config
from genpolicy_deploy.robots.device import DeviceState

from genpolicy.data_files import data_path

CONFIG = "robot/dynamixel.toml"
WARM_UP = 50
VECTORS = ("low", "high", "velocity", "acceleration", "jerk", "first_step", "effort")


def exchanges(port: str, servos: int, seconds: float) -> dict[str, Any]:
    """Write and read as fast as it goes."""
    device = drivers.build(config_of(port, servos))
    state = DeviceState.of(device.spec)
    device.connect()
    try:
        device.read(state)
        goal = state.position.copy()
        took, faults, cpu = [], 0, time.process_time()
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            device.write(goal)
            device.read(state)
            took.append(time.perf_counter() - begin)
            faults += len(state.faults)
            state.faults.clear()
        cpu = time.process_time() - cpu
        device.stop()
    finally:
        device.close()
    times = 1e3 * np.array(took[WARM_UP:])
    p50, p99, p999 = np.percentile(times, [50, 99, 99.9]).round(3).tolist()
    return {
        "servos": servos,
        "exchanges": len(times),
        "per_second": round(1e3 / times.mean(), 1),
        "ms": {"p50": p50, "p99": p99, "p999": p999, "max": round(times.max(), 3)},
        "driver_cpu_ms": round(1e3 * cpu / len(took), 3),  # says something on a busy machine, too
        "faults": faults,
        "wire_ms": round(1e3 / device.spec.max_rate_hz, 3),
    }


def config_of(port: str, servos: int) -> Any:
    """The example file's arm, with its last joint left out if there are seven servos."""
    path = data_path("configs") / CONFIG
    options = load_config(path, "dynamixel") | {"mode": "joints", "observations": {}}
    for key in ("home", "gripper", "workspace"):
        options.pop(key)
    options["joints"] = {
        key: values[:servos] if key in VECTORS or key == "names" else values
        for key, values in options["joints"].items()
    }
    for key in ("ids", "zero", "scale"):
        options["driver"][key] = options["driver"][key][:servos]
    options["driver"] |= {"port": port, "watchdog_s": 2.5}
    return arm_toml.parse("dynamixel", options, path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20.0, help="per number of servos")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    command = [sys.executable, "-m", "genpolicy_sim.peers.dynamixel"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as peer:
        assert peer.stdin and peer.stdout
        port = json.loads(peer.stdout.readline())["ready"]["port"]
        rows = [exchanges(port, servos, args.seconds) for servos in (7, 8)]
        peer.stdin.close()
    result = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "rows": rows}
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
