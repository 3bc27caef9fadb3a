"""Reads a flight log: all that is whole, of a file that may end anywhere.

``log_format`` describes the file. It is read from its beginning, without the index at its end, so
a log whose end is missing (power cut, a writer killed) is read up to the last chunk that is whole.
"""

from __future__ import annotations

import contextlib
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.log_format import (
    CDR,
    END,
    EVENT,
    METADATA,
    Layout,
    decode_event,
    layout_from_json,
)

MAGIC = b"\x89MCAP0\r\n"
# Opcodes of MCAP records
_FOOTER, _CHANNEL, _MESSAGE, _CHUNK, _METADATA = 2, 4, 5, 6, 12
_RECORD = struct.Struct("<BQ")
_MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log_time, publish_time
_CHUNK_HEAD = struct.Struct("<QQQII")  # times, size and CRC when uncompressed, length of a name


@dataclass(frozen=True)
class FlightLog:
    """A log in memory: one structured array per kind of frame, in the order of recording."""

    header: dict[str, Any]
    ticks: NDArray[Any]
    steps: NDArray[Any]
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
    if not raw.startswith(MAGIC):
        raise GenpolicyError(f"{path}: not a genpolicy-deploy log")
    found = _Found()
    whole = False
    with contextlib.suppress(ValueError, KeyError, StopIteration, struct.error, MemoryError):
        whole = found.scan(raw)  # up to where it is damaged
    try:
        layout = layout_from_json(found.header["frames"])
        tables = found.tables(layout)
    except (ValueError, KeyError, TypeError) as error:
        raise GenpolicyError(f"{path}: not a genpolicy-deploy log, or cut at its start") from error
    events = tables["event"]
    whole &= found.without_gaps() and len(events) > 0 and bytes(events["kind"][-1]) == END.encode()
    return FlightLog(found.header, tables["tick"], tables["step"], tables["chunk"], events, whole)


class _Found:
    """Messages by topic, as the file is scanned."""

    def __init__(self) -> None:
        self.header: dict[str, Any] = {}
        self._topics: dict[int, str] = {}
        self._messages: dict[str, list[bytes]] = {}
        self._times: dict[str, list[int]] = {}
        self._sequences: list[int] = []

    def scan(self, raw: bytes) -> bool:
        """Take what there is; whether the file was closed properly."""
        for opcode, body in _records(raw, len(MAGIC)):
            if opcode == _METADATA:
                self._take_metadata(body)
            elif opcode == _CHUNK:
                for inner, record in _records(_unpacked(body), 0):
                    self._take(inner, record)
            elif opcode == _FOOTER:
                return raw.endswith(MAGIC)
        return False

    def _take(self, opcode: int, body: bytes) -> None:
        if opcode == _CHANNEL:
            (number,) = struct.unpack_from("<H", body)
            self._topics[number] = next(_strings(body, 4)).removeprefix("/")
        elif opcode == _MESSAGE:
            number, sequence, _, t_ns = _MESSAGE_HEAD.unpack_from(body)
            topic = self._topics[number]
            self._messages.setdefault(topic, []).append(body[_MESSAGE_HEAD.size :])
            self._times.setdefault(topic, []).append(t_ns)
            if topic != "limits":
                self._sequences.append(sequence)

    def _take_metadata(self, body: bytes) -> None:
        name = next(_strings(body, 0))
        if name == METADATA:
            texts = _strings(body, 8 + len(name))  # behind the name, the size of the map
            self.header = {key: json.loads(text) for key, text in zip(texts, texts, strict=True)}

    def without_gaps(self) -> bool:
        """Whether no frame was dropped."""
        return self._sequences == list(range(len(self._sequences)))

    def tables(self, layout: Layout) -> dict[str, NDArray[Any]]:
        """One structured array per kind of frame."""
        start = len(CDR)
        tables = {}
        for kind, dtype in layout.items():
            messages = self._messages.get(kind, [])
            if kind == "event":
                texts = map(decode_event, messages)
                rows = [(t, *row) for t, row in zip(self._times.get(kind, []), texts, strict=True)]
                tables[kind] = np.array(rows, EVENT)
            else:
                tables[kind] = np.frombuffer(b"".join(m[start:] for m in messages), dtype)
        return tables


def _records(raw: bytes, place: int) -> Iterator[tuple[int, bytes]]:
    """Records from ``place`` on, up to the last that is whole."""
    while place + _RECORD.size <= len(raw):
        opcode, length = _RECORD.unpack_from(raw, place)
        place += _RECORD.size
        if place + length > len(raw):
            return
        yield opcode, raw[place : place + length]
        place += length


def _strings(body: bytes, place: int) -> Iterator[str]:
    """All strings from ``place`` on."""
    while place < len(body):
        (length,) = struct.unpack_from("<I", body, place)
        place += 4 + length
        yield body[place - length : place].decode()


def _unpacked(body: bytes) -> bytes:
    """The records of a chunk.

    Raises:
        ValueError: it is damaged, or packed in a way that is not ours.
    """
    import zstandard

    _, _, size, crc, length = _CHUNK_HEAD.unpack_from(body)
    start = _CHUNK_HEAD.size + length
    packing, data = body[_CHUNK_HEAD.size : start], body[start + 8 :]
    if packing == b"zstd":
        try:
            data = zstandard.decompress(data, size)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
    elif packing:
        raise ValueError(f"chunks packed by {packing!r}")
    if zlib.crc32(data) != crc:
        raise ValueError("a chunk's check fails")
    return data
