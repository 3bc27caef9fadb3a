"""The process that writes a flight log: ``python -m genpolicy_deploy.log_writer``, for Recorder.

It copies frames from the ring in shared memory into an MCAP file. Twice a second the chunk at hand
is finished and synchronised onto the disk, so that a power cut costs half a second of the log, and
only then is its room in the ring free again.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import select
import struct
import sys
import time
from typing import Any, BinaryIO

from genpolicy_deploy.link import outlive_signals
from genpolicy_deploy.log_format import (
    CDR,
    EVENT_SCHEMA,
    EVENT_TEXT,
    METADATA,
    PREFIX,
    encode_event,
    layout_from_json,
    limits_layout,
    message_definition,
)
from genpolicy_deploy.recorder import COUNTERS

POLL_S = 0.1
SYNC_S = 0.5
_PREFIX = struct.Struct("<qIIq")  # PREFIX and the field that every frame begins with, t_ns


class LogWriter:
    """Writes one file until nobody fills the ring any more.

    Args:
        file: empty.
        memory: file descriptor of the ring.
        slot: bytes per frame in it.
        info: what the metadata record will say.
    """

    def __init__(self, file: BinaryIO, memory: int, slot: int, info: dict[str, Any]) -> None:
        from mcap.writer import CompressionType, Writer

        self._file, self._slot = file, slot
        self._map = mmap.mmap(memory, 0)
        self._capacity = (len(self._map) - COUNTERS) // slot
        self._counters = memoryview(self._map)[:16].cast("q")
        self._read = 0
        self._offset = int(info["wall_minus_monotonic_ns"])
        # A flush, not a size, ends a chunk: what is not yet on disk stays in the ring.
        self._mcap = Writer(file, chunk_size=1 << 30, compression=CompressionType.ZSTD)
        self._mcap.start(library="genpolicy-deploy")
        self._mcap.add_metadata(METADATA, {key: json.dumps(value) for key, value in info.items()})
        self._add_channels(info)
        self.sync()

    def _add_channels(self, info: dict[str, Any]) -> None:
        layout = layout_from_json(info["frames"])
        axes = info.get("axes", ())
        limits, self._limits = limits_layout(info)
        self._channels = []  # by the number of the kind of frame
        for number, (kind, dtype) in enumerate(layout.items()):
            if kind == "event":
                self._event = number
                self._channels.append(self._add(EVENT_SCHEMA, kind, EVENT_TEXT))
                continue
            text = message_definition(dtype, axes)
            self._channels.append(self._add(f"genpolicy/msg/{kind.title()}", kind, text))
        if self._limits:
            text = message_definition(limits)
            self._limits_channel = self._add("genpolicy/msg/Limits", "limits", text)

    def _add(self, name: str, topic: str, text: str) -> int:
        schema = self._mcap.register_schema(name, "ros2msg", text.encode())
        return self._mcap.register_channel(f"/{topic}", "cdr", schema)

    def run(self, parent: int) -> None:
        """Until the other end of pipe ``parent`` closes, and then to the last frame."""
        synced, visible = time.monotonic(), 0
        while not select.select([parent], [], [], POLL_S)[0]:
            # What was counted at the last look is visible by now on every processor.
            self.drain(visible)
            visible = self._counters[0]
            if time.monotonic() - synced > SYNC_S:
                self.sync()
                synced = time.monotonic()
        self.drain(self._counters[0])
        self.finish()

    def drain(self, until: int) -> None:
        """Take frames out of the ring, up to number ``until``."""
        while self._read < until:
            place = COUNTERS + self._read % self._capacity * self._slot
            sequence, kind, length, t_ns = _PREFIX.unpack_from(self._map, place)
            place += PREFIX.itemsize
            self._write(kind, sequence, t_ns, self._map[place : place + length])
            self._read += 1

    def _write(self, kind: int, sequence: int, t_ns: int, frame: bytes) -> None:
        wall_ns = t_ns + self._offset
        if kind == self._event:
            name, text = (field.rstrip(b"\0") for field in (frame[8:32], frame[32:]))
            message = encode_event(wall_ns, name, text)
        else:
            message = CDR + frame
        self._mcap.add_message(self._channels[kind], wall_ns, message, t_ns, sequence & 0xFFFFFFFF)

    def sync(self) -> None:
        """Everything onto the disk; the ring has room again."""
        if self._limits and self._read > self._counters[1]:
            now = time.monotonic_ns()
            wall_ns = now + self._offset
            self._mcap.add_message(self._limits_channel, wall_ns, CDR + self._limits, now)
        self._mcap.flush()
        os.fsync(self._file.fileno())
        self._counters[1] = self._read

    def finish(self) -> None:
        """The index, and the end of the file."""
        self.sync()
        self._mcap.finish()
        self._file.flush()
        os.fsync(self._file.fileno())


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="Log writer of genpolicy-deploy.")
    parser.add_argument("path")
    for name in ("memory", "parent", "slot"):
        parser.add_argument(name, type=int)
    args = parser.parse_args()
    outlive_signals()
    info = json.load(sys.stdin)
    with open(args.path, "wb") as file:
        writer = LogWriter(file, args.memory, args.slot, info)
        print("ready", flush=True)
        writer.run(args.parent)


if __name__ == "__main__":
    main()
