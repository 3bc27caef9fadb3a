"""A scene with one arm as a robot: a process with its own 2 ms clock, absolute goals over a socket.

``python -m genpolicy_sim.robot --fd N`` serves one connection (``SOCK_SEQPACKET``, one end
inherited as descriptor N) and ends when the other side hangs up:

- first it sends a JSON greeting: protocol, rate, names of observations and actions;
- then, every 2 ms and after each reset, a measurement (``STATE``): position on the seven axes
  x, y, z (m, world), rx, ry, rz (rotation vector from ``HOME``, rad), gripper (its target, -1 to
  1), and the task's observations;
- it takes ``COMMAND``s: ``target`` (axes as above), ``reset`` with a seed, ``stop``.

After a reset the brakes are on until the first target, so that an episode starts exactly where
the training environment's does. From then on physics keeps up with the wall clock; goals act from
the next substep. Without a target for ``--silence`` seconds, or after ``stop``, the arm holds the
pose it is in. With ``--lockstep`` a target advances physics by one control step instead.

``--latency``, ``--jitter``, ``--noise`` and ``--loss`` make measurements arrive as they do from
real robots (``measurements.Imperfections``); time stamps stay those of measuring.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import time

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation  # robosuite brings it

from genpolicy_sim.batch_env import BatchEnv
from genpolicy_sim.can import CanSim
from genpolicy_sim.lift import LiftSim
from genpolicy_sim.measurements import Imperfections, MeasurementChannel
from genpolicy_sim.osc import Goal, rotation_matrix
from genpolicy_sim.robosuite_task import SUBSTEPS, TaskSim
from genpolicy_sim.square import SquareSim

KINDS: dict[str, type[TaskSim]] = {kind.name: kind for kind in (LiftSim, CanSim, SquareSim)}
PROTOCOL = 1
PERIOD_NS = 2_000_000
MIN_PAUSE_NS = 100_000
FIFO_PRIORITY = 70  # below the control loop: a robot's own controller is punctual
AXES = 7
HOME = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # the gripper points down
COMMAND = np.dtype([("kind", "S8"), ("seed", "<i8"), ("target", "<f8", (AXES,))])


def state_dtype(obs_dim: int) -> np.dtype:
    """Layout of a measurement; ``t_ns`` is CLOCK_MONOTONIC, ``episode`` counts resets."""
    return np.dtype(
        [
            ("seq", "<i8"),
            ("t_ns", "<i8"),
            ("episode", "<i8"),
            ("success", "<i8"),
            ("holding", "<i8"),
            ("sim_time", "<f8"),
            ("position", "<f8", (AXES,)),
            ("obs", "<f8", (obs_dim,)),
        ]
    )


class SimulatedRobot:
    """Physics and what is measured of it; knows nothing of sockets or clocks.

    Args:
        sim: one simulation.
        silence_s: hold after this long without a target.
    """

    def __init__(self, sim: TaskSim, silence_s: float) -> None:
        self._sim, self.spec = sim, sim.task_spec()
        self._env = BatchEnv(self._sim, self.spec, dtype=np.float64)
        self._sim.substep(1)  # compiles: a robot may not do that when it is to move
        self._silence_ns = int(silence_s * 1e9)
        self._message = np.zeros(1, state_dtype(self.spec.obs_dim))
        self.reset(0)
        self._message["episode"] = 0

    def reset(self, seed: int) -> None:
        """Start episode ``seed`` of the training environment, brakes on."""
        self._env.reset(seed)
        self.moving = False
        self._holding = False
        self._message["episode"] += 1

    def target(self, axes: NDArray[np.float64], now_ns: int) -> None:
        """Pursue a pose; anything not finite is ignored, as a real controller would."""
        if not np.isfinite(axes).all():
            return
        self._heard_ns = now_ns
        self._holding = False
        self.moving = True
        rotation = rotation_matrix(axes[None, 3:6]) @ HOME
        self._sim.set_goal(Goal(axes[None, :3], rotation, axes[6:7]))

    def hold(self) -> None:
        """Stay in the present pose."""
        self._holding = True
        pos, rot = self._sim.report.eef_pos, self._sim.report.eef_rot
        self._sim.set_goal(Goal(pos.copy(), rot.copy(), self._sim.goal.gripper.copy()))

    def advance(self, substeps: int, now_ns: int) -> None:
        """Move on by ``substeps`` of 2 ms."""
        if not self._holding and now_ns - self._heard_ns > self._silence_ns:
            self.hold()
        self._sim.substep(substeps)

    def measure(self) -> NDArray[np.void]:
        """The present state ``[1]`` (``state_dtype``), overwritten by the next."""
        message = self._message[0]
        pos, rot = self._sim.report.eef_pos, self._sim.report.eef_rot
        message["seq"] += 1
        message["t_ns"] = time.monotonic_ns()
        message["success"], message["holding"] = self._sim.success()[0], self._holding
        message["sim_time"] = self._sim.time[0]
        message["position"][:3] = pos[0]
        message["position"][3:6] = Rotation.from_matrix(rot[0] @ HOME.T).as_rotvec()
        message["position"][6] = self._sim.goal.gripper[0]
        self._sim.observe(self._message["obs"])
        return self._message


class Server:
    """Moves messages between a socket and the robot."""

    def __init__(
        self, connection: socket.socket, robot: SimulatedRobot, channel: MeasurementChannel
    ) -> None:
        self._connection, self._robot, self._channel = connection, robot, channel
        self._command = np.zeros(1, COMMAND)
        self._command_bytes = self._command.view(np.uint8).data

    def greet(self) -> None:
        """Say who is there."""
        spec = self._robot.spec
        greeting = {
            "protocol": PROTOCOL,
            "rate_hz": 1e9 / PERIOD_NS,
            "observations": [[f.name, f.dim] for f in spec.observations],
            "action_names": spec.action.names,
        }
        self._connection.send(json.dumps(greeting).encode())

    def publish(self) -> None:
        """Measure, and send what arrives now; when nobody reads, it is dropped."""
        now = time.monotonic_ns()
        self._channel.put(self._robot.measure(), now)
        for message in self._channel.arrived(now):
            with contextlib.suppress(BlockingIOError):
                self._connection.send(message)

    def command(self) -> bytes | None:
        """Carry out the next command that waits; None when none does.

        Raises:
            EOFError: the other side has hung up.
        """
        try:
            size = self._connection.recv_into(self._command_bytes)
        except BlockingIOError:
            return None
        if size == 0:
            raise EOFError
        command = self._command[0]
        kind = bytes(command["kind"])
        if kind == b"target":
            self._robot.target(command["target"], time.monotonic_ns())
        elif kind == b"reset":
            self._robot.reset(int(command["seed"]))
            self._channel.reset(int(command["seed"]))
            self.publish()
        elif kind == b"stop":
            self._robot.hold()
        return kind

    def run_lockstep(self) -> None:
        """One control step per target."""
        while True:
            if self.command() == b"target":
                self._robot.advance(SUBSTEPS, time.monotonic_ns())
                self.publish()

    def run_realtime(self) -> None:
        """On an absolute 2 ms clock; a late substep is made up for, up to one control step."""
        due = time.monotonic_ns()
        while True:
            while self.command() is not None:
                pass
            now = time.monotonic_ns()
            due = max(due, now - SUBSTEPS * PERIOD_NS)
            while due <= now:
                if self._robot.moving:
                    self._robot.advance(1, now)
                due += PERIOD_NS
            self.publish()
            # Never without a pause: with real-time priority that would starve everybody else.
            time.sleep(max(due - time.monotonic_ns(), MIN_PAUSE_NS) / 1e9)


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="Simulated robot of genpolicy-deploy.")
    parser.add_argument("--fd", type=int, required=True, help="inherited socket")
    parser.add_argument("--silence", type=float, default=0.1, help="s without a target: hold")
    parser.add_argument("--task", choices=KINDS, default="lift")
    parser.add_argument("--cube-range", type=float, nargs=2, help="lift: half extent in x and y, m")
    parser.add_argument("--lockstep", action="store_true", help="advance only on targets")
    for name, text in (
        ("latency", "s from measuring to arriving"),
        ("jitter", "s more at random"),
        ("noise", "standard deviation of measured numbers"),
        ("loss", "share of measurements that never arrive"),
    ):
        parser.add_argument(f"--{name}", type=float, default=0.0, help=text)
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for whole groups: the
        signal.signal(number, signal.SIG_IGN)  # other side hangs up when it has stopped the arm
    options = {"cube_range": tuple(args.cube_range)} if args.cube_range else {}
    robot = SimulatedRobot(KINDS[args.task](1, num_threads=1, **options), args.silence)
    channel = MeasurementChannel(Imperfections(args.latency, args.jitter, args.noise, args.loss))
    with socket.socket(fileno=args.fd) as connection:
        server = Server(connection, robot, channel)
        server.greet()
        with contextlib.suppress(EOFError, ConnectionError):
            if args.lockstep:
                server.run_lockstep()
            connection.setblocking(False)
            with contextlib.suppress(PermissionError):
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
            server.run_realtime()


if __name__ == "__main__":
    main()
