"""Any arm with a ROS 2 driver: JointState in, JointTrajectory or Float64MultiArray out.

Speaks DDS (``cyclonedds``) the way ROS 2 does, without a ROS installation: the topics of
ros2_control's joint_state_broadcaster and of its joint_trajectory_controller
(``kind = "trajectory"``: one point, to be reached a little later) or of one of its
forward_command_controllers (``kind = "array"``: the joints in the controller's own order).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots.device import DeviceSpec, DeviceState, Vector
from genpolicy_deploy.robots.ros2_dds import dds_config, dds_topic, ros_topic
from genpolicy_deploy.robots.ros2_states import JointStates

CONNECT_TIMEOUT_S = 12.0  # DDS forgets a process that was killed after 10 s
POLL_S = 0.005
WRITE_BLOCK_MS = 5  # while a reliable reader does not keep up
MAX_RATE_HZ = 250.0
HORIZON_PERIODS = 1.5  # a point is replaced before it is reached, so that motion never pauses


class Ros2Device:
    """Driver; see ``Device``.

    Args:
        joints: names as in ``JointState.name``; for ``kind = "array"`` in the controller's order.
        rate_hz: of the commands.
        stop: "hold"; there is no topic by which a controller could be told to let go.
        domain: ROS_DOMAIN_ID, 0 to 232.
        namespace: of topics that do not begin with "/".
        states: topic of the measurements.
        commands: topic of the commands.
        kind: "trajectory" or "array".
        effort: whether ``JointState.effort`` is read; then it has to be there.
        interface: network interface, by name or address; all by default.
        peers: hosts to look for by address, where multicast does not work. With either of the
            two, CYCLONEDDS_URI is not read.

    Raises:
        GenpolicyError: a key with an impossible value.
    """

    def __init__(
        self,
        joints: Sequence[str],
        rate_hz: float,
        stop: str = "hold",
        domain: int = 0,
        namespace: str = "",
        states: str = "joint_states",
        commands: str = "joint_trajectory_controller/joint_trajectory",
        kind: str = "trajectory",
        effort: bool = False,
        interface: str = "",
        peers: Sequence[str] = (),
    ) -> None:
        _check(not isinstance(domain, bool) and domain in range(233), "domain must be 0 to 232")
        _check(kind in ("trajectory", "array"), "kind must be 'trajectory' or 'array'")
        if stop != "hold":
            raise GenpolicyError("robot 'ros2': a controller cannot be released: stop = \"hold\"")
        self.spec = DeviceSpec(
            name="ros2",
            joints=tuple(joints),
            max_rate_hz=MAX_RATE_HZ,
            on_silence="its controller holds the last command",
            reports_effort=effort,
        )
        self._domain, self._kind = domain, kind
        self._states = dds_topic(namespace, states)
        self._commands = dds_topic(namespace, commands)
        self._time_from_start_ns = round(HORIZON_PERIODS / rate_hz * 1e9)
        self._dds_config = dds_config(interface, peers) if interface or peers else None
        self._entities: list[Any] = []  # kept alive, newest last
        self._last_command: list[float] = []
        self._reader: Any = None
        self._writer: Any = None
        self._publications: Any = None
        self._publishers: Any = None  # all that are there
        self._news: Any = None  # those that have come since the last look

    def connect(self) -> None:
        """See ``Device``. Waits for one publisher of measurements and for a controller."""
        try:
            from genpolicy_deploy.robots import ros2_messages as messages
        except ImportError as error:
            raise GenpolicyError(
                f"robot 'ros2' needs cyclonedds: pip install 'genpolicy[robots]' ({error})"
            ) from error
        self._messages: Any = messages
        self._measurements = JointStates(self.spec.joints, self.spec.reports_effort)
        self._publisher = 0  # the one whose messages we take
        self._complaint = ""
        self._late_writes = 0
        self._last_command = []
        self._open()
        self._await_arm()

    def _open(self) -> None:
        from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
        from cyclonedds.core import (
            DDSException,
            InstanceState,
            Policy,
            Qos,
            ReadCondition,
            SampleState,
            ViewState,
        )
        from cyclonedds.domain import Domain, DomainParticipant
        from cyclonedds.pub import DataWriter
        from cyclonedds.sub import DataReader
        from cyclonedds.topic import Topic
        from cyclonedds.util import duration

        self._error, self._timeout = DDSException, DDSException.DDS_RETCODE_TIMEOUT
        m = self._messages
        command_type = m.JointTrajectory if self._kind == "trajectory" else m.Float64MultiArray
        # Best effort accepts publishers of either kind; only the newest message counts.
        # Some ROS 2 versions send descriptions of their types, with other names of members.
        reading = Qos(
            Policy.Reliability.BestEffort,
            Policy.History.KeepLast(1),
            Policy.TypeConsistency.AllowTypeCoercion(ignore_member_names=True),
        )
        blocking = duration(milliseconds=WRITE_BLOCK_MS)
        writing = Qos(Policy.Reliability.Reliable(blocking), Policy.History.KeepLast(1))
        try:
            if self._dds_config:
                self._entities.append(Domain(self._domain, self._dds_config))
            participant = DomainParticipant(self._domain)
            self._entities.append(participant)
            publications = BuiltinDataReader(participant, BuiltinTopicDcpsPublication)
            alive = ViewState.Any | InstanceState.Alive
            self._publishers = ReadCondition(publications, SampleState.Any | alive)
            self._news = ReadCondition(publications, SampleState.NotRead | alive)
            self._publications = publications
            self._reader = DataReader(
                participant, Topic(participant, self._states, m.JointState), qos=reading
            )
            self._writer = DataWriter(
                participant, Topic(participant, self._commands, command_type), qos=writing
            )
        except DDSException as error:
            self.close()
            raise GenpolicyError(
                f"robot 'ros2': DDS domain {self._domain} cannot be opened ({error.msg}): check "
                f"driver.interface and driver.peers, or CYCLONEDDS_URI"
            ) from error
        self._guid = participant.guid

    def _await_arm(self) -> None:
        """Until everything is as it should be, or the sentence that says what is not."""
        state = DeviceState.of(self.spec)
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        try:
            while problem := self._problem(state):
                if time.monotonic() > deadline:
                    raise GenpolicyError(f"robot 'ros2': {problem}")
                time.sleep(POLL_S)
        except BaseException:
            self.close()
            raise

    def _problem(self, state: DeviceState) -> str:
        """What is still missing, in words; nothing when the arm may be used."""
        publishers = len(self._reader.get_matched_publications())
        if publishers == 0:
            if self._reader.get_requested_incompatible_qos_status().total_count:
                return (
                    f"the publisher of {ros_topic(self._states)} has settings (QoS) that do not fit"
                )
            return (
                f"nobody publishes {ros_topic(self._states)} (sensor_msgs/JointState) in domain "
                f"{self._domain}: start the arm's driver, or set driver.interface and driver.peers"
            )
        if publishers > 1:
            return f"{publishers} programs publish {ros_topic(self._states)}: only one may"
        self.read(state)
        if state.seq < 2:  # the second one shows that the stamps advance
            return self._complaint or f"{ros_topic(self._states)} is silent"
        if not self._writer.get_matched_subscriptions():
            return f"nobody listens to {ros_topic(self._commands)}: start the arm's controller"
        if self._rival_among(self._publishers):
            return f"another program sends commands to {ros_topic(self._commands)}: end it first"
        return ""

    def _rival_among(self, publishers: Any) -> bool:
        """Whether somebody besides ourselves is there to send commands."""
        return any(
            publisher.topic_name == self._commands and publisher.participant_key != self._guid
            for publisher in self._publications.read(1000, publishers)
        )

    def read(self, state: DeviceState) -> None:
        """See ``Device``."""
        if self._late_writes:
            state.faults.append(f"{self._late_writes} commands came too fast for the controller")
            self._late_writes = 0
        try:
            samples = self._reader.take(1)
        except Exception as error:  # the SDK raises whatever its decoder stumbles over
            self._complain(state, f"damaged JointState ({type(error).__name__})")
            return
        if samples and isinstance(samples[0], self._messages.JointState):
            self._same_publisher(samples[0].sample_info.publication_handle)
            now = time.monotonic_ns()
            self._complain(state, self._measurements.take(samples[0], now, state))

    def _same_publisher(self, handle: int) -> None:
        """A second publisher may be another arm, and a restarted one may have moved it.

        Raises:
            GenpolicyError: it is not the one that we connected to.
        """
        self._publisher = self._publisher or handle
        if handle != self._publisher:
            raise GenpolicyError(
                f"robot 'ros2': another program has begun to publish {ros_topic(self._states)}"
            )

    def _complain(self, state: DeviceState, complaint: str) -> None:
        """Into the faults when it begins, not with every message."""
        if complaint and complaint != self._complaint:
            state.faults.append(complaint)
        self._complaint = complaint

    def write(self, command: Vector) -> bool:
        """See ``Device``."""
        if not self._writer.get_publication_matched_status().current_count:
            raise GenpolicyError(
                f"robot 'ros2': nobody listens to {ros_topic(self._commands)} any more"
            )
        if self._rival_among(self._news):
            raise GenpolicyError(
                f"robot 'ros2': another program has begun to send commands to "
                f"{ros_topic(self._commands)}"
            )
        positions = command.tolist()
        if not self._send(positions):
            return False
        self._last_command = positions
        return True

    def _send(self, positions: list[float], velocities: Sequence[float] = ()) -> bool:
        """No velocities but at the end: a controller refuses a last point that moves."""
        m = self._messages
        if self._kind == "array":
            message = m.Float64MultiArray(data=positions)
        else:
            seconds, nanoseconds = divmod(self._time_from_start_ns, 1_000_000_000)
            point = m.JointTrajectoryPoint(
                positions, list(velocities), time_from_start=m.Duration(seconds, nanoseconds)
            )
            # The header has no stamp: the trajectory begins when it arrives, on any clock.
            message = m.JointTrajectory(joint_names=list(self.spec.joints), points=[point])
        try:
            self._writer.write(message)
        except self._error as error:
            if error.code != self._timeout:
                raise GenpolicyError(f"robot 'ros2': a command was not sent ({error})") from error
            self._late_writes += 1
            return False
        return True

    def stop(self) -> None:
        """The arm rests at the last command: say it once more, at zero velocity."""
        if not self._last_command:  # never commanded: its controller has it still
            return
        try:
            self._send(self._last_command, [0.0] * len(self.spec.joints))
            self._writer.wait_for_acks(100_000_000)
        except Exception:  # nobody is left who could hear it
            return
        finally:
            self._last_command = []

    def close(self) -> None:
        """See ``Device``."""
        self._last_command = []
        self._reader = self._writer = None
        self._publications = self._publishers = self._news = None
        while self._entities:
            self._entities.pop()  # the SDK deletes what is no longer referred to


def _check(holds: bool, sentence: str) -> None:
    if not holds:
        raise GenpolicyError(f"robot 'ros2': driver.{sentence}")
