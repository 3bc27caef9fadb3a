"""Flight recorder: a ring in shared memory that the loop fills and another process writes out.

The writer (``log_writer``) survives the control process: after a crash or SIGKILL it still drains
the ring and closes the file. ``log_format`` describes the file, ``flight_log`` reads it back.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError, PolicySpec
from genpolicy_deploy.log_format import (
    END,
    EVENT,
    PREFIX,
    Layout,
    frame_layout,
    layout_to_json,
    packing,
    slot_size,
)

CAPACITY = 4096  # frames in the ring: 8 s at 500 Hz
COUNTERS = 4096  # bytes before the frames: [written, read], a page to themselves


class Recorder:
    """The loop's side: ``put_tick``; or fill ``step`` or ``chunk`` in place, then ``put``.

    Never blocks: when the writer is 8 s behind, frames are dropped and counted.

    Args:
        path: a new file.
        spec: decides the sizes of observations and actions.
        axes: number of the robot's axes.
        info: describes the run (JSON); ``limits`` in it (and ``joint_limits``) are plotted.
        joints: number of its joints, where they are not the axes.

    Raises:
        GenpolicyError: the file exists already, or cannot be made.
    """

    def __init__(
        self, path: Path, spec: PolicySpec, axes: int, info: Mapping[str, Any], joints: int = 0
    ) -> None:
        self.path = path
        self.dropped = 0  # frames that are not in the file; whole after ``close``
        layout = frame_layout(spec, axes, joints)
        try:
            path.open("xb").close()
        except FileExistsError as error:
            raise GenpolicyError(f"{path}: exists already; choose another --log file") from error
        except OSError as error:
            raise GenpolicyError(f"{path}: cannot be written ({error.strerror})") from error
        self._make_ring(layout)
        self.step, self.chunk = self._data["step"], self._data["chunk"]
        self._obs = _by_name(self.step["obs"], spec)
        # Added to any monotonic time of the log, this gives the time of day:
        offset = {"wall_minus_monotonic_ns": time.time_ns() - time.monotonic_ns()}
        self._start_writer({**info, **offset, "frames": layout_to_json(layout)})

    def _make_ring(self, layout: Layout) -> None:
        self._slot = slot_size(layout)
        self._memory = os.memfd_create("genpolicy-recorder")
        os.ftruncate(self._memory, COUNTERS + CAPACITY * self._slot)
        self._map = mmap.mmap(self._memory, 0)
        self._map[:] = bytes(len(self._map))  # no page fault later
        self._counters = memoryview(self._map)[:16].cast("q")
        self._sequence = self._written = 0
        self._prefix, self._data, self._bytes = {}, {}, {}
        for number, (name, dtype) in enumerate(layout.items()):
            frame = np.zeros(1, np.dtype([("prefix", PREFIX), ("data", dtype)]))
            frame["prefix"]["kind"], frame["prefix"]["length"] = number, dtype.itemsize
            self._prefix[name], self._data[name] = frame["prefix"][0], frame["data"][0]
            self._bytes[name] = frame.view(np.uint8).data
        tick = layout["tick"]
        self._tick = struct.Struct("<qII" + packing(tick))
        self._tick_kind = list(layout).index("tick"), tick.itemsize

    def _start_writer(self, info: dict[str, Any]) -> None:
        """Launch it, and wait until the file has begun."""
        parent, self._alive = os.pipe()  # our end closes when this process ends, however it ends
        command = [sys.executable, "-m", "genpolicy_deploy.log_writer", str(self.path)]
        self._writer = subprocess.Popen(
            [*command, str(self._memory), str(parent), str(self._slot)],
            pass_fds=[self._memory, parent],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(parent)
        if not _answer(self._writer, json.dumps(info, allow_nan=False).encode()):
            self._alive = _closed(self._alive)
            self._writer.wait()
            self.path.unlink()
            raise GenpolicyError(f"{self.path}: the process that writes it did not start")

    def observe(self, observation: Mapping[str, NDArray[Any]]) -> None:
        """Put ``{key: [D]}`` into ``step``."""
        for name, view in self._obs.items():
            view[:] = observation[name]

    def put_tick(
        self,
        t_ns: int,
        tick: int,
        vectors: Iterable[NDArray[np.float64]],
        counts: tuple[int, int, int],
        lateness_us: float,
        age_us: float,
        state: int,
        intervention: bool = False,
    ) -> None:
        """Append one tick, in one stroke: six times as fast as field by field.

        Args:
            t_ns: when it began, monotonic.
            tick: its number.
            vectors: ``measured [A]``, ``command [A]``, and ``joints [J]``, ``joint_command [J]``,
                which are empty where the joints are the axes.
            counts: episode, control step within it, commands that limits altered so far.
            lateness_us: of the tick.
            age_us: of the measurement.
            state: as ``State`` numbers them.
            intervention: whether the action in execution came from a person.
        """
        place = self._next()
        if place:
            numbers = [number for vector in vectors for number in vector.tolist()]
            flags = (lateness_us, age_us, state, intervention)
            head = (self._sequence - 1, *self._tick_kind)
            self._tick.pack_into(self._map, place, *head, t_ns, tick, *numbers, *counts, *flags)
            self._written = self._counters[0] = self._written + 1

    def put(self, kind: str) -> None:
        """Append the frame of ``kind`` as it stands."""
        place = self._next()
        if place:
            self._prefix[kind]["sequence"] = self._sequence - 1
            raw = self._bytes[kind]
            self._map[place : place + len(raw)] = raw
            self._written = self._counters[0] = self._written + 1

    def _next(self) -> int:
        """Where the next frame goes in the ring; 0 if there is no room."""
        self._sequence += 1
        if self._written - self._counters[1] >= CAPACITY:
            self.dropped += 1
            return 0
        return COUNTERS + self._written % CAPACITY * self._slot

    def event(self, t_ns: int, kind: str, text: str = "") -> None:
        """Append an event: a change of state, a fault, a note."""
        data = self._data["event"]
        data["t_ns"], data["kind"] = t_ns, kind.encode()[:24]
        data["text"] = text.encode()[: EVENT["text"].itemsize]
        self.put("event")

    def close(self) -> None:
        """Mark the end and wait until everything is on disk."""
        if self._alive < 0:
            return
        self.event(time.monotonic_ns(), END, str(self.dropped))
        self._alive = _closed(self._alive)
        try:
            self._writer.wait(30.0)
        except subprocess.TimeoutExpired:
            self._writer.kill()
            self._writer.wait()
        self.dropped += self._written - self._counters[1]  # none, unless the writer was killed
        os.close(self._memory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _by_name(flat: NDArray[Any], spec: PolicySpec) -> dict[str, NDArray[Any]]:
    """Views of one observation, feature after feature."""
    views, start = {}, 0
    for feature in spec.task.observations:
        views[feature.name] = flat[start : start + feature.dim]
        start += feature.dim
    return views


def _answer(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    """The first line that it says to ``text``; empty if it has ended."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError), process.stdout:
        with process.stdin:
            process.stdin.write(text)
        return process.stdout.readline()
    return b""


def _closed(descriptor: int) -> int:
    os.close(descriptor)
    return -1
