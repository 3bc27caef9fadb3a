"""The ROS 2 messages of arms as IDL types: fields, order and names as ROS 2 puts them on the wire.

ROS 2 sends plain CDR (XCDR version 1, little-endian on every machine we know) of final types;
each message ``pkg/msg/Name`` is the DDS type ``pkg::msg::dds_::Name_``. Importing this module
needs the package ``cyclonedds``.
"""

# The SDK's annotations name IDL types and are no types of Python.
# pyright: reportAssignmentType=false

from dataclasses import dataclass, field

from cyclonedds.idl import IdlStruct
from cyclonedds.idl.annotations import cdrv0, final
from cyclonedds.idl.types import float64, int32, sequence, uint32


@dataclass
@final
@cdrv0
class Time(IdlStruct, typename="builtin_interfaces.msg.dds_.Time_"):
    """Since the epoch of whichever clock the publisher follows."""

    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
@final
@cdrv0
class Duration(IdlStruct, typename="builtin_interfaces.msg.dds_.Duration_"):
    """A span of time; ``nanosec`` counts forward from ``sec`` also where that is negative."""

    sec: int32 = 0
    nanosec: uint32 = 0


@dataclass
@final
@cdrv0
class Header(IdlStruct, typename="std_msgs.msg.dds_.Header_"):
    """When and in which frame."""

    stamp: Time = field(default_factory=Time)
    frame_id: str = ""


@dataclass
@final
@cdrv0
class JointState(IdlStruct, typename="sensor_msgs.msg.dds_.JointState_"):
    """Measured joints, by name; each list is empty or as long as ``name``."""

    header: Header = field(default_factory=Header)
    name: sequence[str] = field(default_factory=list)
    position: sequence[float64] = field(default_factory=list)
    velocity: sequence[float64] = field(default_factory=list)
    effort: sequence[float64] = field(default_factory=list)


@dataclass
@final
@cdrv0
class JointTrajectoryPoint(IdlStruct, typename="trajectory_msgs.msg.dds_.JointTrajectoryPoint_"):
    """Where the joints shall be, ``time_from_start`` after the trajectory begins."""

    positions: sequence[float64] = field(default_factory=list)
    velocities: sequence[float64] = field(default_factory=list)
    accelerations: sequence[float64] = field(default_factory=list)
    effort: sequence[float64] = field(default_factory=list)
    time_from_start: Duration = field(default_factory=Duration)


@dataclass
@final
@cdrv0
class JointTrajectory(IdlStruct, typename="trajectory_msgs.msg.dds_.JointTrajectory_"):
    """A header without a stamp means: begin at once."""

    header: Header = field(default_factory=Header)
    joint_names: sequence[str] = field(default_factory=list)
    points: sequence[JointTrajectoryPoint] = field(default_factory=list)


@dataclass
@final
@cdrv0
class MultiArrayDimension(IdlStruct, typename="std_msgs.msg.dds_.MultiArrayDimension_"):
    """One dimension of an array."""

    label: str = ""
    size: uint32 = 0
    stride: uint32 = 0


@dataclass
@final
@cdrv0
class MultiArrayLayout(IdlStruct, typename="std_msgs.msg.dds_.MultiArrayLayout_"):
    """The shape of an array; controllers take a flat one, without dimensions."""

    dim: sequence[MultiArrayDimension] = field(default_factory=list)
    data_offset: uint32 = 0


@dataclass
@final
@cdrv0
class Float64MultiArray(IdlStruct, typename="std_msgs.msg.dds_.Float64MultiArray_"):
    """Numbers in the order that the controller is configured with."""

    layout: MultiArrayLayout = field(default_factory=MultiArrayLayout)
    data: sequence[float64] = field(default_factory=list)
