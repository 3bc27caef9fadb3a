"""Flight recorder: a ring in shared memory that the loop fills and another process writes out.

The writer survives the control process: after a crash or SIGKILL it still drains the ring and
closes the file. ``genpolicy_deploy.flight_log`` documents the format and reads it back.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import select
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from genpolicy.spec import GenpolicyError, PolicySpec
from genpolicy_deploy.flight_log import END, EVENT, MAGIC, frame_layout
from genpolicy_deploy.link import outlive_signals

CAPACITY = 4096  # frames in the ring: 8 s at 500 Hz
POLL_S = 0.02
SYNC_S = 0.5
_COUNTERS = 4096  # bytes before the frames: [written, read], a page to themselves


class Recorder:
    """The loop's side. Fill ``tick`` or ``chunk`` in place, then ``put``.

    Never blocks: when the writer is 8 s behind, frames are dropped and counted.

    Args:
        path: a new file.
        spec: decides the sizes of observations and actions.
        axes: number of the robot's axes.
        info: goes into the header (JSON).

    Raises:
        GenpolicyError: the file exists already, or cannot be made.
    """

    def __init__(self, path: Path, spec: PolicySpec, axes: int, info: dict[str, Any]) -> None:
        self.path = path
        self.dropped = 0
        self._layout = frame_layout(spec, axes)
        self._size = self._layout.size
        header = json.dumps({**info, "frames": self._layout.to_json()}, allow_nan=False).encode()
        try:
            with open(path, "xb") as file:
                file.write(MAGIC + len(header).to_bytes(4, "little") + header)
        except FileExistsError as error:
            raise GenpolicyError(f"{path}: exists already; choose another --log file") from error
        except OSError as error:
            raise GenpolicyError(f"{path}: cannot be written ({error.strerror})") from error
        self._memory = os.memfd_create("genpolicy-recorder")
        os.ftruncate(self._memory, _COUNTERS + CAPACITY * self._size)
        self._map = mmap.mmap(self._memory, 0)
        self._counters = np.frombuffer(self._map, np.int64, 2)
        self._ring = np.frombuffer(self._map, np.uint8, offset=_COUNTERS).reshape(CAPACITY, -1)
        self._frames = {name: self._layout.empty(name) for name in self._layout.kinds}
        self.tick = self._frames["tick"][0]["data"]
        self.chunk = self._frames["chunk"][0]["data"]
        self._bytes = {name: f.view(np.uint8) for name, f in self._frames.items()}
        self._written = 0
        self._start_writer()

    def _start_writer(self) -> None:
        parent, self._alive = os.pipe()  # our end closes when this process ends, however it ends
        command = [sys.executable, "-m", "genpolicy_deploy.recorder", str(self.path)]
        self._writer = subprocess.Popen(
            [*command, str(self._memory), str(parent), str(self._size)],
            pass_fds=[self._memory, parent],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(parent)

    def put(self, kind: str) -> None:
        """Append the frame of ``kind`` as it stands."""
        if self._written - self._counters[1] >= CAPACITY:
            self.dropped += 1
            return
        frame, raw = self._frames[kind][0], self._bytes[kind]
        frame["sequence"] = self._written
        frame["crc"] = zlib.crc32(raw.data[4:])
        self._ring[self._written % CAPACITY, : len(raw)] = raw
        self._written += 1
        self._counters[0] = self._written

    def event(self, t_ns: int, kind: str, text: str = "") -> None:
        """Append an event: a change of state, a fault, a note."""
        data = self._frames["event"][0]["data"]
        data["t_ns"], data["kind"] = t_ns, kind.encode()[:24]
        data["text"] = text.encode()[: EVENT["text"].itemsize]
        self.put("event")

    def close(self) -> None:
        """Mark the end and wait until everything is on disk."""
        if self._alive < 0:
            return
        self.event(time.monotonic_ns(), END.decode())
        os.close(self._alive)
        self._alive = -1
        try:
            self._writer.wait(30.0)
        except subprocess.TimeoutExpired:
            self._writer.kill()
            self._writer.wait()
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


class _Writer:
    """The writer process: copies frames that are whole from the ring to the file."""

    def __init__(self, file: BinaryIO, memory: int, size: int) -> None:
        self._file, self._map = file, mmap.mmap(memory, 0)
        self._counters = np.frombuffer(self._map, np.int64, 2)
        self._ring = np.frombuffer(self._map, np.uint8, offset=_COUNTERS).reshape(CAPACITY, size)

    def drain(self) -> None:
        """Write what has come. A frame whose check fails is not yet whole in our memory."""
        read = int(self._counters[1])
        while read < self._counters[0]:
            frame = self._ring[read % CAPACITY].tobytes()
            length = int.from_bytes(frame[4:8], "little")
            crc = int.from_bytes(frame[:4], "little")
            sequence = int.from_bytes(frame[8:16], "little")
            if sequence != read or zlib.crc32(frame[4:length]) != crc:
                break
            self._file.write(frame[:length])
            read += 1
            self._counters[1] = read

    def run(self, parent: int) -> None:
        """Until the other end of pipe ``parent`` closes, and then to the last frame."""
        synced = time.monotonic()
        while not select.select([parent], [], [], POLL_S)[0]:
            self.drain()
            if time.monotonic() - synced > SYNC_S:
                self.sync()
                synced = time.monotonic()
        self.drain()
        self.sync()

    def sync(self) -> None:
        """Onto the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())


def main() -> None:
    """Entry point of the writer process."""
    parser = argparse.ArgumentParser(description="Log writer of genpolicy-deploy.")
    parser.add_argument("path")
    for name in ("memory", "parent", "size"):
        parser.add_argument(name, type=int)
    args = parser.parse_args()
    outlive_signals()
    with open(args.path, "ab") as file:
        _Writer(file, args.memory, args.size).run(args.parent)


if __name__ == "__main__":
    main()
