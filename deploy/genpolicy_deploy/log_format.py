"""What a flight log holds, and how a message of it is laid out.

The file is MCAP (https://mcap.dev), so Foxglove and other viewers open it. Its messages are CDR
with ROS 2 message definitions: fields at their natural alignment, in little-endian bytes. Every
record below lists its fields from the widest to the narrowest, which leaves nothing to pad: a
NumPy record *is* the CDR message, bit for bit, and costs nothing to encode or decode.

    /tick    every tick of the loop           /chunk   every chunk that the policy gave
    /step    every control step               /event   changes of state, faults (a viewer's log)
    /limits  the robot's limits, twice a second, to be plotted beside what they bound

``log_time`` is the time of day, ``publish_time`` the monotonic clock. A message's ``sequence``
counts over all topics: a gap is what was dropped. The metadata record ``genpolicy`` describes the
run (JSON by key); its entry ``frames`` gives the NumPy types.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genpolicy.spec import PolicySpec
from genpolicy_deploy.states import State

METADATA = "genpolicy"
CDR = b"\0\1\0\0"  # before every message: plain CDR, little-endian
END = "end"  # the last event of a log that was closed; its text says how many frames were dropped
PREFIX = np.dtype([("sequence", "<i8"), ("kind", "<u4"), ("length", "<u4")])  # in the ring
EVENT = np.dtype([("t_ns", "<i8"), ("kind", "S24"), ("text", "S200")])

Layout = dict[str, np.dtype]  # of each kind of frame; a kind's number is its place

_ROS_TYPES = {"<i8": "int64", "<f8": "float64", "<i4": "int32", "<f4": "float32", "|u1": "uint8"}
_ROS_TYPES |= {"|b1": "bool"}
_CODES = {"<i8": "q", "<f8": "d", "<i4": "i", "<f4": "f", "|u1": "B", "|b1": "?"}  # of ``struct``
_NOTES = {
    "t_ns": "monotonic clock",
    "step": "control step within the episode",
    "age_us": "of the measurement",
    "measured": "by axis",
    "command": "by axis",
    "joints": "measured",
    "joint_command": "sent to the driver",
    "blocked": "commands that limits altered so far",
    "intervention": "the action came from a person",
    "acted": "false: the episode ended here, and there is no action",
    "success": "of the task, as observed here",
    "counter": "with the seed it fixes the noise",
}
EVENT_SCHEMA = "rcl_interfaces/msg/Log"  # viewers have a panel for it
EVENT_TEXT = """\
builtin_interfaces/Time stamp
uint8 level
string name
string msg
string file
string function
uint32 line
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""
_INFO, _WARN, _ERROR = 20, 30, 40
_LEVELS = {
    "state": _INFO,
    END: _INFO,
    "note": _INFO,
    "intervention": _INFO,
    "limit": _WARN,
    "hold": _WARN,
}


def frame_layout(spec: PolicySpec, axes: int, joints: int = 0) -> Layout:
    """What a run of ``spec`` on a robot of ``axes`` axes records.

    ``joints`` is the number of joints, where they are not the axes.
    """
    task = spec.task
    by_joint = [("joints", "<f8", (joints,)), ("joint_command", "<f8", (joints,))]
    tick = [
        ("t_ns", "<i8"),
        ("tick", "<i8"),
        ("measured", "<f8", (axes,)),
        ("command", "<f8", (axes,)),
        *(by_joint if joints else []),
        ("episode", "<i4"),
        ("step", "<i4"),
        ("blocked", "<i4"),
        ("lateness_us", "<f4"),
        ("age_us", "<f4"),
        ("state", "u1"),
        ("intervention", "?"),
    ]
    step = [
        ("t_ns", "<i8"),
        ("seed", "<i8"),
        ("episode", "<i4"),
        ("step", "<i4"),
        ("obs", "<f4", (task.obs_dim,)),
        ("action", "<f4", (task.action.dim,)),
        ("acted", "?"),
        ("success", "?"),
        ("intervention", "?"),
    ]
    chunk = [
        ("t_ns", "<i8"),
        ("t_obs_ns", "<i8"),
        ("seed", "<i8"),
        ("counter", "<i8"),
        ("score", "<f8"),
        ("episode", "<i4"),
        ("step", "<i4"),
        ("index", "<i4"),
        ("delay", "<i4"),  # control steps that the chunk was planned to take; 0: not said
        ("compute_us", "<f4"),
        ("obs", "<f4", (spec.obs_steps * task.obs_dim,)),
        ("prev_actions", "<f4", (spec.chunk, task.action.dim)),
        ("prev_weights", "<f4", (spec.chunk,)),
        ("actions", "<f4", (spec.chunk, task.action.dim)),
    ]
    return {"tick": np.dtype(tick), "step": np.dtype(step), "chunk": np.dtype(chunk)} | {
        "event": EVENT
    }


def limits_layout(info: Mapping[str, Any]) -> tuple[np.dtype, bytes]:
    """Type and value of the message on ``/limits``: one vector per limit of the run's robot."""
    limits = {name: v for name, v in info.get("limits", {}).items() if v}
    limits |= {f"joint_{name}": v for name, v in info.get("joint_limits", {}).items() if v}
    dtype = np.dtype([(name, "<f8", (len(values),)) for name, values in limits.items()])
    return dtype, b"".join(np.asarray(v, "<f8").tobytes() for v in limits.values())


def slot_size(layout: Layout) -> int:
    """Bytes of the longest frame with its prefix, rounded up to whole cache lines."""
    longest = PREFIX.itemsize + max(dtype.itemsize for dtype in layout.values())
    return -(-longest // 64) * 64


def packing(dtype: np.dtype) -> str:
    """A record's fields in the notation of ``struct``, without the sign for the byte order."""
    fields = [dtype[name] for name in dtype.names or ()]
    return "".join(f"{int(np.prod(field.shape))}{_CODES[field.base.str]}" for field in fields)


def layout_to_json(layout: Layout) -> dict[str, Any]:
    """In NumPy's notation."""
    return {name: dtype.descr for name, dtype in layout.items()}


def layout_from_json(data: Mapping[str, Any]) -> Layout:
    """Back from ``layout_to_json``."""
    return {
        name: np.dtype([(f[0], f[1], tuple(f[2])) if len(f) > 2 else tuple(f) for f in fields])
        for name, fields in data.items()
    }


def message_definition(dtype: np.dtype, axes: Sequence[str] = ()) -> str:
    """The ROS 2 message definition of a record; arrays of more dimensions are flat in it."""
    notes = dict(_NOTES)
    if axes:
        notes |= dict.fromkeys(("measured", "command"), ", ".join(axes))
    lines = []
    for name in dtype.names or ():
        field = dtype[name]
        size = f"[{int(np.prod(field.shape))}]" if field.shape else ""
        lines.append(f"{_ROS_TYPES[field.base.str]}{size} {name}")
        if name in notes:
            lines[-1] += f"  # {notes[name]}"
        if name == "state":  # constants that precede a field name its values
            lines[-1:-1] = [f"uint8 {state.name}={state.value}" for state in State]
    return "\n".join(lines) + "\n"


def encode_event(wall_ns: int, kind: bytes, text: bytes) -> bytes:
    """An event as CDR; kind and text in UTF-8."""
    seconds, nanoseconds = divmod(wall_ns, 1_000_000_000)
    body = struct.pack("<iIB", seconds, nanoseconds, _LEVELS.get(kind.decode(), _ERROR))
    for string in (kind, text, b"", b""):
        body = _aligned(body) + struct.pack("<I", len(string) + 1) + string + b"\0"
    return CDR + _aligned(body) + bytes(4)


def _aligned(body: bytes) -> bytes:
    return body.ljust(-(-len(body) // 4) * 4, b"\0")


def decode_event(message: bytes) -> tuple[bytes, bytes]:
    """Kind and text of what ``encode_event`` wrote."""
    kind, place = _string(message, len(CDR) + 12)
    text, _ = _string(message, place)
    return kind, text


def _string(message: bytes, place: int) -> tuple[bytes, int]:
    """The string at ``place``, and where the next one is."""
    (length,) = struct.unpack_from("<I", message, place)
    start = place + 4
    end = start + length
    return message[start : end - 1], -(-end // 4) * 4
