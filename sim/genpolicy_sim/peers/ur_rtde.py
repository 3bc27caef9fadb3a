"""The server side of RTDE, version 2: how Universal Robots' controllers exchange variables.

A message is a big-endian size (2 bytes), a type (1 byte) and a payload. A client asks for a list
of outputs at a rate and for any number of lists of inputs ("recipes"), starts the exchange, then
receives and sends packages of packed values. Source: Universal Robots' guide to the "Real-Time
Data Exchange".
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

REQUEST_VERSION, GET_CONTROLLER, TEXT, DATA = 86, 118, 77, 85
SETUP_OUTPUTS, SETUP_INPUTS, START, PAUSE = 79, 73, 83, 80
CONTROLLER_VERSION = (5, 13, 0, 1)

_FORMATS = {
    "DOUBLE": "d",
    "UINT32": "I",
    "INT32": "i",
    "UINT64": "Q",
    "VECTOR6D": "6d",
    "VECTOR3D": "3d",
    "UINT8": "B",
}
_OUTPUTS = {
    "timestamp": "DOUBLE",
    "target_q": "VECTOR6D",
    "target_qd": "VECTOR6D",
    "actual_q": "VECTOR6D",
    "actual_qd": "VECTOR6D",
    "actual_current": "VECTOR6D",
    "robot_mode": "INT32",
    "safety_mode": "INT32",
    "safety_status_bits": "UINT32",
    "robot_status_bits": "UINT32",
    "runtime_state": "UINT32",
    "speed_scaling": "DOUBLE",
}


def variable_type(name: str) -> str:
    """The type of a variable of RTDE by its name, ``NOT_FOUND`` for those we do not have."""
    if name.startswith(("input_int_register_", "output_int_register_")):
        return "INT32"
    if name.startswith(("input_double_register_", "output_double_register_")):
        return "DOUBLE"
    if name == "external_force_torque":
        return "VECTOR6D"
    return _OUTPUTS.get(name, "NOT_FOUND")


class Recipe:
    """Names of variables and how their values are packed behind the recipe's number."""

    def __init__(self, number: int, names: list[str]) -> None:
        self.number, self.names = number, names
        self.types = [variable_type(name) for name in names]
        known = "".join(_FORMATS.get(kind, "") for kind in self.types)
        self._struct = struct.Struct(">B" + known)
        self._lengths = [int(_FORMATS.get(kind, "0")[:-1] or 1) for kind in self.types]

    def pack(self, values: Mapping[str, Any]) -> bytes:
        """The payload of a data package with the present ``values``."""
        flat: list[Any] = []
        for name, length in zip(self.names, self._lengths, strict=True):
            flat.extend(values[name]) if length > 1 else flat.append(values[name])
        return self._struct.pack(self.number, *flat)

    def unpack(self, payload: bytes) -> dict[str, Any]:
        """The values that a data package carries."""
        _, *flat = self._struct.unpack(payload)
        values, at = {}, 0
        for name, length in zip(self.names, self._lengths, strict=True):
            values[name] = flat[at] if length == 1 else flat[at : at + length]
            at += length
        return values


def message(kind: int, payload: bytes) -> bytes:
    """Frame a payload."""
    return struct.pack(">HB", 3 + len(payload), kind) + payload


class Session:
    """One connected client.

    Args:
        client: its socket; from here on it does not block.
        values: all outputs by name, as they are now.
        on_inputs: hears of every package of inputs.
    """

    def __init__(
        self,
        client: socket.socket,
        values: Mapping[str, Any],
        on_inputs: Callable[[dict[str, Any]], None],
    ) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = client
        self.outputs: Recipe | None = None
        self.period = 0.002
        self.started = False
        self.due = 0.0  # when the next package of outputs is, s
        self._values, self._on_inputs = values, on_inputs
        self._inputs: dict[int, Recipe] = {}
        self._received = bytearray()

    def receive(self) -> bool:
        """Serve whatever has arrived; False when the client is gone."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._received += data
        while len(self._received) >= 3:
            size, kind = struct.unpack_from(">HB", self._received)
            if size < 3 or len(self._received) < size:
                break
            payload = bytes(self._received[3:size])
            del self._received[:size]
            self._serve(kind, payload)
        return bool(data)

    def package(self) -> bytes:
        """The data package with the present values."""
        assert self.outputs is not None
        return message(DATA, self.outputs.pack(self._values))

    def send(self, data: bytes) -> None:
        """Send what the client's buffer takes: a client that does not read loses data."""
        with contextlib.suppress(OSError):  # gone, or not reading: ``receive`` tells which
            self.socket.send(data)

    def _serve(self, kind: int, payload: bytes) -> None:
        if kind == DATA:
            recipe = self._inputs.get(payload[0]) if payload else None
            if recipe is not None:
                self._on_inputs(recipe.unpack(payload))
            return
        answer = self._answer(kind, payload)
        if answer is not None:
            self.send(message(kind, answer))

    def _answer(self, kind: int, payload: bytes) -> bytes | None:
        if kind == REQUEST_VERSION:
            return b"\x01" if payload == b"\x00\x02" else b"\x00"
        if kind == GET_CONTROLLER:
            return struct.pack(">4I", *CONTROLLER_VERSION)
        if kind == SETUP_OUTPUTS:
            (rate,) = struct.unpack_from(">d", payload)
            self.period = 1.0 / min(max(rate, 1.0), 500.0)
            self.outputs = Recipe(1, _names(payload[8:]))
            return b"\x01" + ",".join(self.outputs.types).encode()
        if kind == SETUP_INPUTS:
            recipe = Recipe(len(self._inputs) + 1, _names(payload))
            self._inputs[recipe.number] = recipe
            return bytes([recipe.number]) + ",".join(recipe.types).encode()
        if kind in (START, PAUSE):
            usable = self.outputs is not None and "NOT_FOUND" not in self.outputs.types
            self.started = kind == START and usable
            return b"\x01" if usable or kind == PAUSE else b"\x00"
        return None


def _names(payload: bytes) -> list[str]:
    return [name for name in payload.decode("ascii").split(",") if name]
