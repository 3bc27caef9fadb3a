"""Eight Feetech STS3215 servos on a bus, as a serial port: a Panda with Feetech's protocol.

``python -m genpolicy_sim.peers.feetech [--objects PORT] [--seed SEED]`` announces ``port``. Ids 1
to 7 are the arm's joints, 8 the gripper, assembled as ``ZERO`` and ``PER_TURN`` say. As the real
ones do, they start with a return delay and without torque, go to whatever goal they have when
torque comes on, clip goals to their ends and hold the last one when nobody speaks. Until torque
first comes on, somebody holds the arm.

Orders besides those of ``orders`` and ``serial_port``, S in seconds:

- ``mute ID S``: one servo does not answer;
- ``freeze S``: measurements do not change;
- ``error ID KIND``: a hardware error (voltage, sensor, overheating, current, angle, overload), of
  which overload takes the servo's torque; ``none`` ends it;
- ``set ID ADDRESS SIZE VALUE``: put a value into a servo's memory.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from genpolicy_sim.peers.arm import PeerArm
from genpolicy_sim.peers.orders import Order
from genpolicy_sim.peers.serial_port import serve

PING, READ, WRITE, SYNC_READ, SYNC_WRITE = 0x01, 0x02, 0x03, 0x82, 0x83
BROADCAST = 0xFE
ERRORS = {
    "none": 0,
    "voltage": 1,
    "sensor": 2,
    "overheating": 4,
    "current": 8,
    "angle": 16,
    "overload": 32,
}
TICKS = 4096

# How the simulated arm was assembled: ticks where a joint is at zero, rad (m) per turn of a servo.
ZERO = np.array([2048, 2048, 2048, 3072, 2048, 800, 2048, 1024])
PER_TURN = 2.0 * np.pi * np.array([1, -1, 1, 1, -1, 1, 1, 0.1 / (2.0 * np.pi)])
STRONGEST = np.array([87, 87, 87, 87, 12, 12, 12, 40])  # N m (N), what a load of 1000 means

# Registers.
MODEL, ID, RETURN_DELAY, CONFIRM, LOW, HIGH, MODE = 3, 5, 7, 8, 9, 11, 33
TORQUE, GOAL, LOCK, PRESENT, VOLTAGE, STATUS = 40, 42, 55, 56, 62, 65
STORED = 40  # registers below are kept without power, and written only when not locked
STS3215 = 777
POSITION_SIGN, LOAD_SIGN = 1 << 15, 1 << 10


class StsServo:
    """Memory of one servo."""

    def __init__(self, servo: int) -> None:
        self.mute_until = 0.0
        self.memory = bytearray(256)
        self.set_word(MODEL, STS3215)
        self.memory[ID] = servo
        self.memory[RETURN_DELAY] = 250
        self.memory[CONFIRM] = 1
        self.set_word(HIGH, TICKS - 1)
        self.set_word(GOAL, 2048)
        self.memory[LOCK] = 1
        self.memory[VOLTAGE : VOLTAGE + 2] = bytes((120, 35))  # 12.0 V, 35 °C

    def word(self, address: int) -> int:
        """Two bytes as a number."""
        return int.from_bytes(self.memory[address : address + 2], "little")

    def set_word(self, address: int, value: int) -> None:
        """A number as two bytes."""
        self.memory[address : address + 2] = value.to_bytes(2, "little")

    def write(self, address: int, data: bytes) -> None:
        """As from the bus: what is measured cannot be written, what is locked is not."""
        for place, value in enumerate(data, address):
            if place < PRESENT and (place >= STORED or not self.memory[LOCK]):
                self.memory[place] = value

    @property
    def goal(self) -> int:
        """Ticks, between the servo's ends."""
        return min(max(self.word(GOAL), self.word(LOW)), self.word(HIGH))


class StsBus:
    """All servos: bytes in, bytes out, goals to the arm."""

    def __init__(self, arm: PeerArm) -> None:
        self._arm = arm
        self._servos = {number: StsServo(number) for number in range(1, len(arm.names) + 1)}
        self._buffer = bytearray()
        self._per_tick = PER_TURN / TICKS
        self._powered: list[bool | None] = [None] * len(arm.names)  # None: never had torque
        self._frozen_until = 0.0

    def receive(self, data: bytes) -> list[bytes]:
        """Obey the instructions in ``data``; the status packets that answer them, in order."""
        self._buffer += data
        replies: list[bytes] = []
        while (start := self._buffer.find(b"\xff\xff")) >= 0:
            del self._buffer[:start]
            if len(self._buffer) < 4 or len(self._buffer) < (size := self._buffer[3] + 4):
                break
            packet = bytes(self._buffer[:size])
            if size < 6 or checksum(packet[2:-1]) != packet[-1]:
                del self._buffer[:1]
                continue
            del self._buffer[:size]
            replies += self._obey(packet[2], packet[4], packet[5:-1])
        now = time.monotonic()
        return [reply for reply in replies if self._servos[reply[2]].mute_until < now]

    def orders(self) -> dict[str, Order]:
        """For ``Orders``."""
        return {
            "reset": self._reset,
            "mute": self._mute,
            "freeze": self._freeze,
            "error": self._fail,
            "set": self._set,
        }

    def _reset(self, seed: str) -> None:
        """The arm is put elsewhere: servos that have torque hold it there."""
        self._arm.reset(int(seed))
        self._measure()
        for servo in self._servos.values():
            servo.set_word(GOAL, servo.word(PRESENT))

    def _mute(self, servo: str, seconds: str) -> None:
        self._servos[int(servo)].mute_until = time.monotonic() + float(seconds)

    def _freeze(self, seconds: str) -> None:
        self._frozen_until = time.monotonic() + float(seconds)

    def _fail(self, servo: str, kind: str) -> None:
        memory = self._servos[int(servo)].memory
        memory[STATUS] = ERRORS[kind]
        if kind == "overload":
            memory[TORQUE] = 0
            self._act()

    def _set(self, servo: str, address: str, size: str, value: str) -> None:
        data = int(value).to_bytes(int(size), "little")
        self._servos[int(servo)].memory[int(address) : int(address) + len(data)] = data

    def _obey(self, servo: int, instruction: int, data: bytes) -> list[bytes]:
        if instruction == SYNC_READ and len(data) > 2:
            self._measure()
            known = [number for number in data[2:] if number in self._servos]
            return [self._status(number, data[0], data[1]) for number in known]
        if instruction == SYNC_WRITE and len(data) > 2:
            self._write_many(data[0], data[1], data[2:])
            return []
        if servo not in self._servos:
            return []
        if instruction == PING:
            return [self._status(servo, 0, 0)]
        if instruction == READ and len(data) == 2:
            self._measure()
            return [self._status(servo, data[0], data[1])]
        if instruction == WRITE and len(data) > 1:
            self._servos[servo].write(data[0], data[1:])
            self._act()
            return [self._status(servo, 0, 0)] if self._servos[servo].memory[CONFIRM] else []
        return []

    def _write_many(self, address: int, size: int, data: bytes) -> None:
        for start in range(0, len(data) - size, size + 1):
            if data[start] in self._servos:
                values = data[start + 1 : start + 1 + size]
                self._servos[data[start]].write(address, values)
        self._act(goals=address <= GOAL < address + size)

    def _act(self, goals: bool = False) -> None:
        """Torque and goals to the arm: a servo with torque goes to its goal at once."""
        target = self._arm.target.copy()
        for index, servo in enumerate(self._servos.values()):
            on = bool(servo.memory[TORQUE])
            if on != bool(self._powered[index]):
                self._powered[index] = on
                self._arm.power(index, on)
            if on:
                target[index] = (servo.goal - ZERO[index]) * self._per_tick[index]
        if goals:
            self._arm.receive(target)
        else:
            self._arm.target[:] = target

    def _measure(self) -> None:
        if time.monotonic() < self._frozen_until:
            return
        ticks = np.rint(self._arm.position / self._per_tick + ZERO)
        speed = np.rint(self._arm.velocity / self._per_tick)
        load = np.rint(np.clip(self._arm.effort / STRONGEST, -1, 1) * 1000 * np.sign(PER_TURN))
        values = np.stack(
            [
                signed(ticks, POSITION_SIGN),
                signed(speed, POSITION_SIGN),
                signed(load, LOAD_SIGN),
            ],
            axis=1,
        )
        for servo, row in zip(self._servos.values(), values.astype("<u2"), strict=True):
            servo.memory[PRESENT : PRESENT + 6] = row.tobytes()

    def _status(self, servo: int, address: int, size: int) -> bytes:
        memory = self._servos[servo].memory
        body = bytes((servo, size + 2, memory[STATUS])) + memory[address : address + size]
        return b"\xff\xff" + body + bytes((checksum(body),))


def checksum(body: bytes) -> int:
    """Of everything between header and checksum."""
    return 255 - sum(body) % 256


def signed(values: NDArray[np.float64], sign: int) -> NDArray[np.int64]:
    """Sign and magnitude."""
    magnitude = np.minimum(np.abs(values), sign - 1).astype(np.int64)
    return magnitude + sign * (values < 0)


if __name__ == "__main__":
    serve("feetech", StsBus)
