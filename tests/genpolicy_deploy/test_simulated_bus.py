"""A controller lifts the cube through eight servos on a serial bus: from ONNX to wire."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from genpolicy_deploy.robots import arm_toml
from genpolicy_deploy.robots.base import Limits
from genpolicy_deploy.robots.config import load_config
from peer_process import PeerProcess

EXAMPLE = Path(__file__).parents[2] / "configs" / "robot" / "dynamixel.toml"
PATIENT = {  # of a machine that has other work: the example's numbers are for a robot computer
    "reply_s = 0.006": "reply_s = 0.05",
    "watchdog_s = 0.2": "watchdog_s = 2.0",
    "silence_s = 0.1": "silence_s = 0.5",
}
TICK = np.array([2.0 * np.pi] * 7 + [0.08]) / 4096
RATE_HZ = 100.0
LIFTED = 0.86  # m, height of the cube
ATTEMPTS = 3  # a machine without time for it stops the arm, as it should


@pytest.fixture
def objects_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def bus(objects_port):
    peer = PeerProcess("dynamixel", "--objects", str(objects_port))
    yield peer
    peer.close()


def config_file(folder: Path, port: str, objects_port: int) -> Path:
    text = EXAMPLE.read_text().replace('"/dev/ttyUSB0"', json.dumps(port))
    for normal, patient in (PATIENT | {"7650": str(objects_port)}).items():
        assert normal in text
        text = text.replace(normal, patient)
    path = folder / "arm.toml"
    path.write_text(text)
    return path


def test_a_controller_lifts_the_cube_within_all_limits(
    tmp_path, build_controller, bus, objects_port
):
    controller = build_controller(tmp_path / "expert.onnx", expert=True, scores=False)
    path = config_file(tmp_path, bus.ready["port"], objects_port)
    command = [sys.executable, "-m", "genpolicy_deploy", "run", str(controller)]
    command += ["--robot", "dynamixel", "--robot-config", str(path), "--seconds", "12"]
    limits = arm_toml.parse("dynamixel", load_config(path, "dynamixel"), path).limits
    failures = []
    for seed in range(ATTEMPTS):
        for order in ("reboot", f"reset {seed}", "state"):
            bus.order(order)
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
        state = bus.state()
        check_limits(np.array([goal for _, goal in state["goals"]]), limits)
        assert state["torque"]  # stop = "hold": the cube is not dropped
        if run.returncode == 0 and state["cube_height"] > LIFTED:
            return
        failures.append((run.returncode, state["cube_height"], run.stderr))
    pytest.fail(f"never lifted: {failures}")


def check_limits(goals: np.ndarray, limits: Limits) -> None:
    """What the servos were told, one goal after the other."""
    assert len(goals) > 10
    assert (goals >= np.array(limits.low) - TICK).all()
    assert (goals <= np.array(limits.high) + TICK).all()
    steps = np.abs(np.diff(goals, axis=0))
    assert (steps <= np.array(limits.velocity) / RATE_HZ + 1.01 * TICK).all()
