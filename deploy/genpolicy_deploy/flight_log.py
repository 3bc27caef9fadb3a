r"""The flight recorder's file format, and its reader.

    magic "GPLOG1\r\n", u32 length, JSON header, frames until the end of the file

All numbers are little-endian. A frame is ``u32 crc, u32 length, i64 sequence, u8 kind`` and the
fields of its kind; ``crc`` is CRC-32 of everything after itself, ``length`` counts the whole
frame. The header's ``frames`` lists each kind's fields in NumPy's notation. A file that ends in
the middle of a frame (power cut, SIGKILL) is read up to there.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError, PolicySpec

MAGIC = b"GPLOG1\r\n"
_FRAME = [("crc", "<u4"), ("length", "<u4"), ("sequence", "<i8"), ("kind", "u1")]
_PREFIX = np.dtype(_FRAME).itemsize
END = b"end"
EVENT = np.dtype([("t_ns", "<i8"), ("kind", "S24"), ("text", "S200")])


@dataclass(frozen=True)
class FrameLayout:
    """Fields of every kind of frame; a kind's number is its place."""

    kinds: dict[str, np.dtype]

    @property
    def size(self) -> int:
        """Bytes of the longest frame, rounded up to whole cache lines."""
        longest = _PREFIX + max(dtype.itemsize for dtype in self.kinds.values())
        return -(-longest // 64) * 64

    def empty(self, name: str) -> NDArray[Any]:
        """One frame ``[1]`` to be filled: its prefix and its ``data``."""
        frame = np.zeros(1, np.dtype([*_FRAME, ("data", self.kinds[name])]))
        frame["kind"] = list(self.kinds).index(name)
        frame["length"] = frame.dtype.itemsize
        return frame

    def to_json(self) -> dict[str, Any]:
        """For the header."""
        return {name: dtype.descr for name, dtype in self.kinds.items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FrameLayout:
        """Back from the header."""
        return cls(
            {
                name: np.dtype([(f[0], f[1], tuple(f[2])) if len(f) > 2 else tuple(f) for f in d])
                for name, d in data.items()
            }
        )


def frame_layout(spec: PolicySpec, axes: int) -> FrameLayout:
    """What a run of ``spec`` on a robot of ``axes`` axes records."""
    tick = [
        ("t_ns", "<i8"),
        ("tick", "<i8"),
        ("episode", "<i4"),
        ("step", "<i4"),  # control step within the episode
        ("state", "u1"),
        ("lateness_us", "<f4"),
        ("age_us", "<f4"),  # of the measurement
        ("measured", "<f8", (axes,)),
        ("command", "<f8", (axes,)),
    ]
    chunk = [
        ("t_ns", "<i8"),
        ("t_obs_ns", "<i8"),
        ("episode", "<i4"),
        ("step", "<i4"),
        ("seed", "<i8"),
        ("counter", "<i8"),
        ("index", "<i4"),
        ("score", "<f8"),
        ("compute_us", "<f4"),
        ("obs", "<f4", (spec.obs_steps * spec.task.obs_dim,)),
        ("actions", "<f4", (spec.chunk, spec.task.action.dim)),
    ]
    return FrameLayout({"tick": np.dtype(tick), "chunk": np.dtype(chunk), "event": EVENT})


@dataclass(frozen=True)
class FlightLog:
    """A log in memory: one structured array per kind of frame, in the order of recording."""

    header: dict[str, Any]
    ticks: NDArray[Any]
    chunks: NDArray[Any]
    events: NDArray[Any]
    complete: bool  # nothing is missing in between, and the last frame is the event "end"

    def event_texts(self, kind: str) -> list[str]:
        """Texts of the events of one kind."""
        chosen = self.events[self.events["kind"] == kind.encode()]
        return [bytes(text).decode(errors="replace") for text in chosen["text"]]


def read_log(path: Path) -> FlightLog:
    """Read as much as is whole.

    Raises:
        GenpolicyError: no such file, or not a log.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise GenpolicyError(f"{path}: cannot be read ({error.strerror})") from error
    start = len(MAGIC) + 4
    size = int.from_bytes(raw[len(MAGIC) : start], "little")
    if not raw.startswith(MAGIC) or len(raw) < start + size:
        raise GenpolicyError(f"{path}: not a genpolicy-deploy log")
    try:
        header = json.loads(raw[start : start + size])
        layout = FrameLayout.from_json(header["frames"])
        frames, complete = _split(raw, start + size, layout)
        ticks, chunks, events = (frames[name] for name in ("tick", "chunk", "event"))
    except (ValueError, KeyError, TypeError) as error:
        raise GenpolicyError(f"{path}: damaged header ({error})") from error
    ended = len(events) > 0 and events[-1]["kind"] == END
    return FlightLog(header, ticks, chunks, events, bool(complete and ended))


def _split(raw: bytes, start: int, layout: FrameLayout) -> tuple[dict[str, NDArray[Any]], bool]:
    names = list(layout.kinds)
    found: dict[str, list[bytes]] = {name: [] for name in names}
    count, complete = 0, True
    while start < len(raw):
        crc, length = np.frombuffer(raw[start : start + 8].ljust(8, b"\0"), "<u4").tolist()
        frame = raw[start : start + length]
        whole = _PREFIX <= length == len(frame) and zlib.crc32(frame[4:]) == crc
        if not whole or frame[16] >= len(names):
            complete = False
            break
        complete &= int.from_bytes(frame[8:16], "little") == count
        found[names[frame[16]]].append(frame[_PREFIX:])
        start, count = start + length, count + 1
    arrays = {name: np.frombuffer(b"".join(found[name]), layout.kinds[name]) for name in names}
    return arrays, complete
