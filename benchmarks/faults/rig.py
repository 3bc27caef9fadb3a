"""One arm to break: its simulated peer, and a real ``genpolicy-deploy run`` that moves it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from genpolicy_deploy.robots.arm_toml import parse
from genpolicy_deploy.robots.base import Limits

from faults import puppet
from faults.sensor import Sensor

ROOT = Path(__file__).parents[2]
DRIVERS = ("mujoco", "dynamixel", "feetech", "ros2", "ur", "lerobot")
CENTRES = {"ur": (-0.49, -0.13, 0.45)}  # of the hand's path, m; by default:
CENTRE = (-0.10, 0.0, 1.0)
TICK = 2.0 * np.pi / 4096  # rad: what servos on a bus resolve
STARTED_S, ENDED_S = 240.0, 15.0  # the simulation may have to be compiled first
_PEER_PRIORITY = 70  # of FIFO; the loop's and the arm process' are higher
_CONFIGS = {"ur": "ur5e", "mujoco": "mujoco_gentle"}
_ROLES = {  # by what stands in the command line of a process of the run
    "loop": "",
    "arm": "genpolicy_deploy.robots.arm_process",
    "simulation": "genpolicy_sim.robot",
    "policy": "genpolicy_deploy.inference",
    "recorder": "genpolicy_deploy.log_writer",
}


class Rig:
    """Peer, sensor and configuration of one arm. A context manager.

    Args:
        driver: one of ``DRIVERS``.
        folder: for its files.
        number: tells rigs apart that run at the same time.
    """

    def __init__(self, driver: str, folder: Path, number: int) -> None:
        self.driver, self.folder, self._number = driver, folder, number
        self.sensor = Sensor(CENTRES.get(driver, CENTRE))
        self.peer: subprocess.Popen[str] | None = None
        self.goals: list[tuple[float, list[float]]] = []  # received by the peer, s and rad
        self.controller = puppet.build(folder / "puppet.onnx", gripper=driver != "ur")
        self.runs = 0
        self._goals_read = 0

    def __enter__(self) -> Rig:
        self.plug_in()
        return self

    def __exit__(self, *error: object) -> None:
        self.sensor.close()
        if self.peer is not None:
            assert self.peer.stdin
            with contextlib.suppress(OSError):
                self.peer.stdin.close()
            self._wait_for_peer()

    def plug_in(self) -> None:
        """Start a peer (again)."""
        where: Mapping[str, Any] = {}
        if self.driver != "mujoco":
            self.peer = subprocess.Popen(
                [sys.executable, "-m", f"genpolicy_sim.peers.{self.driver}", *self._peer_args()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=_environment(),
                preexec_fn=_punctual,
            )
            assert self.peer.stdout
            where = json.loads(self.peer.stdout.readline())["ready"]
        self._configure(where)

    def replace_peer(self) -> None:
        """The peer has died, or is to: start another."""
        if self.peer is not None:
            self.peer.kill()
            self._wait_for_peer()
            self.plug_in()

    def order(self, order: str) -> Any:
        """Have the peer do something; returns what it answers."""
        assert self.peer and self.peer.stdin and self.peer.stdout
        try:
            self.peer.stdin.write(order + "\n")
            self.peer.stdin.flush()
            answer = self.peer.stdout.readline()
        except OSError:
            return None
        if answer and not answer.startswith("ok"):
            raise RuntimeError(f"{self.driver}: order '{order}' is answered {answer.strip()}")
        return json.loads(answer[2:].strip() or "null")

    def look(self) -> float:
        """Take the goals that the peer has received; returns its fastest joint, rad/s."""
        if self.driver == "mujoco":
            return self._look_at_file()
        state = self.order("state")
        if not state:
            return 0.0
        self.goals += [(t, q) for t, q in state["goals"]]
        return float(np.abs(state["velocity"]).max())

    @property
    def limits(self) -> Limits:
        """Of the goals at the wire."""
        if self.config is None:
            from genpolicy_deploy.robots.config import override_limits
            from genpolicy_deploy.robots.mujoco import LIMITS

            return override_limits(LIMITS, self.options["limits"], "mujoco")
        return self.config.limits

    @property
    def period_s(self) -> float:
        """Between two goals at the wire."""
        return 1.0 / (self.config.rate_hz if self.config else puppet.CONTROL_HZ)

    @property
    def braking_s(self) -> float:
        """No stop inside the limits takes longer."""
        return self.config.braking_s() if self.config else 0.5

    @property
    def resolution(self) -> np.ndarray:
        """By how much goals at the wire are rounded, per joint."""
        count = len(self.limits.low)
        if self.driver not in ("dynamixel", "feetech"):
            return np.full(count, 1e-9)
        return np.array([TICK] * (count - 1) + [0.1 / 4096 * 1.01])

    def _peer_args(self) -> list[str]:
        if self.driver == "ur":
            return ["--host", f"127.77.{self._number % 200}.{1 + self._number // 200}"]
        return ["--domain", str(100 + self._number % 100)] if self.driver == "ros2" else []

    def _configure(self, where: Mapping[str, Any]) -> None:
        """The shipped configuration, with this peer and this sensor in it."""
        name = _CONFIGS.get(self.driver, self.driver)
        options = tomllib.loads((ROOT / f"configs/robot/{name}.toml").read_text())
        del options["robot"]
        self.options = options
        self.config = None
        if self.driver != "mujoco":
            driver = options["driver"]
            if self.driver == "lerobot":
                driver["arguments"] = where
            else:
                known = ("port", "host", "domain")
                driver |= {key: value for key, value in where.items() if key in known}
            options.pop("home", None)  # the peer is put where a run begins
            options["observations"]["object"] = f"udp:{self.sensor.port}:{puppet.OBJECT}"
            self.config = parse(self.driver, options)
        document = {"robot": self.driver, **options}
        self.config_path = self.folder / f"{self.driver}.toml"
        self.config_path.write_text(_toml(document))

    def _look_at_file(self) -> float:
        """The simulated arm's goals stand in a file, see ``mujoco_run``."""
        path = self.folder / f"goals-{self.runs}"
        raw = path.read_bytes() if path.exists() else b""
        rows = np.frombuffer(raw[: len(raw) // 64 * 64]).reshape(-1, 8)
        new = rows[self._goals_read :]
        self._goals_read = len(rows)
        self.goals += [(row[0], row[1:].tolist()) for row in new]
        if len(rows) < 100:
            return 0.0
        moved = np.abs(rows[-1, 1:4] - rows[-100, 1:4]).max()
        return float(moved / max(rows[-1, 0] - rows[-100, 0], 1e-3)) * 5.0  # as a joint would

    def run(self) -> Run:
        """Start a run."""
        self.runs += 1
        self._goals_read = 0
        self.goals.clear()
        if self.peer is not None:
            self.order("reset 0")
            self.look()
            self.goals.clear()
        return Run(self)

    def _wait_for_peer(self) -> None:
        assert self.peer is not None
        try:
            self.peer.wait(5.0)
        except subprocess.TimeoutExpired:
            self.peer.kill()
            self.peer.wait()
        self.peer = None


class Run:
    """A run on a rig: processes by their role, its log and its emergency stop."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.log = rig.folder / f"run-{rig.runs}.mcap"
        self.estop = rig.folder / f"stop-{rig.runs}"
        self._report = rig.folder / f"run-{rig.runs}.txt"
        module = ["-m", "genpolicy_deploy", "run"]
        if rig.driver == "mujoco":
            goals = str(rig.folder / f"goals-{rig.runs}")
            module = [str(Path(__file__).with_name("mujoco_run.py")), goals, str(rig.sensor.port)]
        command = [sys.executable, *module, str(rig.controller), "--robot", rig.driver]
        with open(self._report, "w") as report:
            self.process = subprocess.Popen(
                [*command, "--robot-config", str(rig.config_path), "--seconds", "100000",
                 "--log", str(self.log), "--estop", str(self.estop)],
                stdin=subprocess.DEVNULL, stdout=report, stderr=report, env=_environment(),
                start_new_session=True,
            )  # fmt: skip
        self.born = time.monotonic()

    @property
    def ended(self) -> int | None:
        """Exit code, once it has one."""
        return self.process.poll()

    def pid(self, role: str) -> int:
        """Process id of one of ``_ROLES``.

        Raises:
            LookupError: there is none.
        """
        if role == "loop":
            return self.process.pid
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for child in children.read_text().split():
            with contextlib.suppress(OSError):
                if _ROLES[role] in Path(f"/proc/{child}/cmdline").read_text():
                    return int(child)
        raise LookupError(f"{self.rig.driver}: no process '{role}'")

    def signal(self, role: str, number: signal.Signals) -> None:
        """Send a signal to the process of a role."""
        os.kill(self.pid(role), number)

    def pause(self, role: str, seconds: float) -> None:
        """Stop a process for a while, as a busy or swapping computer does."""
        pid = self.pid(role)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def wait_moving(self, timeout_s: float) -> bool:
        """Until new goals arrive at the peer that lead somewhere, and the arm follows them."""
        deadline = time.monotonic() + timeout_s
        seen = len(self.rig.goals)
        while time.monotonic() < deadline and self.ended is None:
            speed = self.rig.look()
            new = self.rig.goals[seen:][-20:]
            if len(new) == 20 and speed > 0.03:
                way = np.abs(np.diff([goal for _, goal in new], axis=0)).sum()
                if way > 0.01 and self.log.exists():
                    return True
            time.sleep(0.05)
        return False

    def wait_ended(self, timeout_s: float) -> bool:
        """Until it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_s)
        return self.ended is not None

    def said(self) -> str:
        """What it wrote to the terminal."""
        return self._report.read_text()

    def kill(self) -> None:
        """End whatever is left of it."""
        for role in reversed(_ROLES):  # the loop last: its children are found by it
            with contextlib.suppress(LookupError, OSError):
                self.signal(role, signal.SIGKILL)
        self.process.wait()


def _punctual() -> None:
    """A robot's own controller is not held up by what else this computer does."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PEER_PRIORITY))


def _environment() -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "sim"), str(ROOT / "deploy")]
    inherited = os.environ.get("PYTHONPATH")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return os.environ | threads | {"PYTHONPATH": os.pathsep.join([*paths, inherited or ""])}


def _toml(document: Mapping[str, Any]) -> str:
    """A TOML document of scalars, lists and tables; JSON's values are TOML's."""
    scalars = {k: v for k, v in document.items() if not isinstance(v, Mapping)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in scalars.items()]
    for name, table in document.items():
        if isinstance(table, Mapping):
            lines += [f"[{name}]", *(f"{k} = {_inline(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)
