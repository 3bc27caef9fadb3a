"""An arm run by ros2_control, as its topics look from outside, with physics behind it.

``python -m genpolicy_sim.peers.ros2`` publishes ``joint_states`` as the joint_state_broadcaster
does and follows ``joint_trajectory_controller/joint_trajectory`` (``--kind trajectory``) or
``forward_command_controller/commands`` (``--kind array``), over Cyclone DDS on the loopback
interface, without multicast. The controllers check their messages as ros2_control's do, hold the
last command when none comes, and move from one setpoint to the next in a straight line.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration
from genpolicy_deploy.robots import ros2_messages
from genpolicy_deploy.robots.ros2_dds import dds_config, dds_topic

from genpolicy_sim.peers.arm import PeerArm, Vector
from genpolicy_sim.peers.orders import Order, Orders, announce

messages: Any = ros2_messages  # whose annotations are IDL's, not Python's
LOOPBACK = "127.0.0.1"
CONTROL_HZ = 500.0
STATES = "joint_states"
COMMANDS = {
    "trajectory": "joint_trajectory_controller/joint_trajectory",
    "array": "forward_command_controller/commands",
}
# ros2_control's: reliable and volatile, of which only the newest matters here.
QOS = Qos(
    Policy.Reliability.Reliable(duration(milliseconds=100)),
    Policy.Durability.Volatile,
    Policy.History.KeepLast(1),
)
# Here all commands are kept for ``state``, also those that came while we were late.
EVERY = Qos(
    Policy.Reliability.Reliable(duration(milliseconds=100)),
    Policy.Durability.Volatile,
    Policy.History.KeepLast(64),
)


class Controller:
    """Takes commands as ros2_control does, and says where the joints shall be now."""

    def __init__(self, arm: PeerArm) -> None:
        self._arm = arm
        self._from, self._to = arm.target.copy(), arm.target.copy()
        self._start_s = self._end_s = 0.0
        self.refused = 0  # messages that a real controller would have dropped with a warning
        self.last: Any = None  # the newest message that was taken

    def follow(self, message: Any, now: float) -> None:
        """A message has come."""
        goal = self._goal(message)
        if goal is None:
            self.refused += 1
            return
        self.last = message
        self._from, self._start_s = self.setpoint(now), now
        self._to, self._end_s = goal, now + _time_from_start(message)
        self._arm.receive(goal)

    def setpoint(self, now: float) -> Vector:
        """Where the joints shall be at second ``now``."""
        span = self._end_s - self._start_s
        share = 1.0 if span <= 0.0 else min(max((now - self._start_s) / span, 0.0), 1.0)
        return self._from + share * (self._to - self._from)

    def restart(self) -> None:
        """As after activation: stay where the arm is."""
        self._from[:] = self._to[:] = self._arm.position
        self._end_s = 0.0

    def _goal(self, message: Any) -> Vector | None:
        """Joint positions of a message that fits, in the arm's order."""
        names: list[str] = list(self._arm.names)
        values = message.data if isinstance(message, messages.Float64MultiArray) else []
        if isinstance(message, messages.JointTrajectory):
            if len(message.points) != 1 or any(message.points[0].velocities):
                return None  # the last point of a trajectory must not move
            values, names = message.points[0].positions, message.joint_names
        if sorted(names) != sorted(self._arm.names) or len(values) != len(names):
            return None
        goal = dict(zip(names, values, strict=True))
        if not all(map(math.isfinite, values)):
            return None
        return np.array([goal[name] for name in self._arm.names])


def _time_from_start(message: Any) -> float:
    if not isinstance(message, messages.JointTrajectory):
        return 0.0
    span = message.points[-1].time_from_start
    return span.sec + 1e-9 * span.nanosec


class Peer:
    """The robot computer: arm, controller and broadcaster in one participant.

    Args:
        arm: physics.
        domain: of DDS.
        namespace: of all topics.
        kind: of the commands, "trajectory" or "array".
        rate_hz: of the measurements.
    """

    def __init__(
        self, arm: PeerArm, domain: int, namespace: str, kind: str, rate_hz: float
    ) -> None:
        self.arm, self.controller = arm, Controller(arm)
        self._period, self._due = 1.0 / rate_hz, 0.0
        self._domain = Domain(domain, dds_config(LOOPBACK, [LOOPBACK]))
        self._participant = DomainParticipant(domain)
        self._states = self._topic(dds_topic(namespace, STATES), messages.JointState)
        types = {"trajectory": messages.JointTrajectory, "array": messages.Float64MultiArray}
        self._commands = self._topic(dds_topic(namespace, COMMANDS[kind]), types[kind])
        self._publishers = [self._new_publisher()]
        self._rivals: list[Any] = []
        self._reader: Any = DataReader(self._participant, self._commands, qos=EVERY)
        self._damage: deque[Callable[[Any], None]] = deque()  # one per message to come
        self._ends = {"silent": 0.0, "freeze": 0.0}
        self._stamp_ns = 0

    def _topic(self, name: str, kind: Any) -> Any:
        return Topic(self._participant, name, kind)

    def _new_publisher(self) -> Any:
        return DataWriter(self._participant, self._states, qos=QOS)

    def advance(self, now: float) -> None:
        """One cycle of the controller manager: take commands, move, publish."""
        while self._reader is not None and (found := self._reader.take(1)):
            if isinstance(found[0], self._commands.data_type):
                self.controller.follow(found[0], now)
        self.arm.target[:] = self.controller.setpoint(now)
        self.arm.advance(now)
        if now >= self._due:
            self._due = max(self._due + self._period, now)
            self._publish(now)

    def _publish(self, now: float) -> None:
        if now < self._ends["silent"]:
            return
        if now >= self._ends["freeze"]:
            self._stamp_ns = time.time_ns()
        message = self._measure()
        if self._damage:
            self._damage.popleft()(message)
        for publisher in self._publishers if message.name else ():
            publisher.write(message)

    def _measure(self) -> Any:
        """As a driver may send it: the gripper first, and a joint of something else besides."""
        arm, order = self.arm, [len(self.arm.names) - 1, *range(len(self.arm.names) - 1)]
        stamp = messages.Time(*divmod(self._stamp_ns, 1_000_000_000))
        return messages.JointState(
            messages.Header(stamp, "world"),
            [*(arm.names[i] for i in order), "torso"],
            *([*(float(v[i]) for i in order), 0.0] for v in (arm.position, arm.velocity)),
            [*(float(arm.effort[i]) for i in order), 0.0],
        )

    def orders(self) -> dict[str, Order]:
        """Beside those of every peer.

        drop N: the next N measurements are lost. nan N, partial N, short N: they have a value that
        is no number, lack a joint, or have fewer positions than names. silent S: none for S
        seconds. freeze S: they repeat one stamp for S seconds. second: another publisher of
        measurements begins. rival: another program is there to send commands. deaf: the
        controller stops listening. well: all of this ends.
        """
        return {
            "reset": self._reset,
            "state": self._state,
            "drop": lambda count: self._damage.extend([_lost] * int(count)),
            "nan": lambda count: self._damage.extend([_not_a_number] * int(count)),
            "partial": lambda count: self._damage.extend([_partial] * int(count)),
            "short": lambda count: self._damage.extend([_short] * int(count)),
            "silent": lambda span: self._until("silent", span),
            "freeze": lambda span: self._until("freeze", span),
            "second": lambda: self._publishers.append(self._new_publisher()),
            "rival": lambda: self._rivals.append(
                DataWriter(self._participant, self._commands, qos=QOS)
            ),
            "deaf": self._deaf,
            "well": self._recover,
        }

    def _reset(self, seed: str) -> None:
        self.arm.reset(int(seed))
        self.controller.restart()

    def _state(self) -> dict[str, Any]:
        return self.arm.state() | {
            "refused": self.controller.refused,
            "last": dataclasses.asdict(self.controller.last) if self.controller.last else None,
        }

    def _until(self, name: str, span: str) -> None:
        self._ends[name] = time.monotonic() + float(span)

    def _deaf(self) -> None:
        self._reader = None

    def _recover(self) -> None:
        self._damage.clear()
        self._ends = dict.fromkeys(self._ends, 0.0)
        del self._publishers[1:]
        self._rivals.clear()
        if self._reader is None:
            self.controller.restart()
            self._reader = DataReader(self._participant, self._commands, qos=EVERY)


def _lost(message: Any) -> None:
    message.name.clear()  # such a one is not published


def _not_a_number(message: Any) -> None:
    message.position[0] = math.nan


def _partial(message: Any) -> None:
    for values in (message.name, message.position, message.velocity, message.effort):
        del values[1]


def _short(message: Any) -> None:
    del message.position[-1]


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="Simulated arm behind ROS 2's topics.")
    parser.add_argument("--domain", type=int, default=0)
    parser.add_argument("--namespace", default="")
    parser.add_argument("--kind", choices=COMMANDS, default="trajectory")
    parser.add_argument("--rate", type=float, default=200.0, help="measurements per second")
    parser.add_argument("--objects", type=int, metavar="PORT", help="UDP: where the cube is")
    parser.add_argument("--seed", type=int, default=0, help="episode of Lift that it starts in")
    args = parser.parse_args()
    arm = PeerArm(args.objects, args.seed)
    peer = Peer(arm, args.domain, args.namespace, args.kind, args.rate)
    orders = Orders(arm, peer.orders())
    announce(
        domain=args.domain,
        namespace=args.namespace,
        commands=COMMANDS[args.kind],
        kind=args.kind,
        interface=LOOPBACK,
        peers=[LOOPBACK],
    )
    due = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt):
        while orders.poll():
            peer.advance(time.monotonic())
            due = max(due + 1.0 / CONTROL_HZ, time.monotonic())
            select.select([orders], [], [], max(due - time.monotonic(), 0.0))


if __name__ == "__main__":
    main()
