"""Eight Dynamixel X servos on a bus, as a serial port: a Panda with Protocol 2.0.

``python -m genpolicy_sim.peers.dynamixel [--objects PORT] [--seed SEED]`` announces ``port``. Ids 1
to 7 are the arm's joints (XM430-W350), 8 the gripper (XL430-W250), assembled as ``ZERO`` and
``SCALE`` of ``dynamixel_servo`` say. They behave as the e-manual says where it matters to a driver:
control table with access rules and limits, Bus Watchdog, Hardware Error Status with its alert bit
and shutdown, goals that act as soon as torque comes on.

Orders besides those of ``orders`` and ``serial_port``, S in seconds:

- ``mute ID S``: one servo does not answer;
- ``freeze S``: measurements do not change; ``jump ID TICKS S``: one is off by so many ticks;
- ``error ID KIND``: a hardware error (voltage, overheating, encoder, shock, overload);
- ``reboot``: the power of all is off and on: no errors, no torque;
- ``set ID ADDRESS SIZE VALUE``: put a value into a control table.
"""

from __future__ import annotations

import time

from genpolicy_sim.peers.arm import PeerArm
from genpolicy_sim.peers.dynamixel_bus import BROADCAST, Instruction, Receiver, Result, status
from genpolicy_sim.peers.dynamixel_servo import (
    ERRORS,
    GOAL,
    MODELS,
    POSITION,
    TORQUE,
    TRIPPED,
    WATCHDOG,
    Servo,
)
from genpolicy_sim.peers.orders import Order
from genpolicy_sim.peers.serial_port import serve


class Bus:
    """All servos: bytes in, status packets out, goals to the arm."""

    def __init__(self, arm: PeerArm) -> None:
        self._arm = arm
        self._servos = {servo.id: servo for servo in (Servo(arm, j) for j in range(len(MODELS)))}
        arm.torque = False
        self._muted: dict[int, float] = {}
        self._frozen_until = self._jump_until = 0.0
        self._heard = time.monotonic()
        self._receiver = Receiver()

    def orders(self) -> dict[str, Order]:
        """For ``Orders``."""
        return {
            "reset": self._reset,
            "mute": lambda i, s: self._muted.update({int(i): time.monotonic() + float(s)}),
            "freeze": self._freeze,
            "jump": self._jump,
            "error": lambda i, kind: self._servos[int(i)].fail(ERRORS[kind]),
            "reboot": self._reboot,
            "set": self._set,
        }

    def receive(self, data: bytes) -> list[bytes]:
        """Obey the instructions in ``data``; the status packets that answer them, in order."""
        replies = []
        for packet in self._receiver.packets(data):
            now = self._heard = time.monotonic()
            for servo, (result, value) in self._obey(packet).items():
                if self._muted.get(servo, 0.0) < now:
                    replies.append(status(servo, result, value, self._servos[servo].alert))
        self._watch()
        return replies

    def _watch(self) -> None:
        """What the servos do without being told."""
        now = time.monotonic()
        for servo in self._servos.values():
            servo.watch(now - self._heard)
            if now > self._jump_until:
                servo.offset = 0
            if now > self._frozen_until:
                servo.measure()

    def _obey(self, packet: Instruction) -> dict[int, tuple[Result, bytes]]:
        """{servo: (result, data)} of the servos that answer."""
        if packet.code == Instruction.SYNC_READ:
            address, size = packet.words(2)
            asked = [self._servos[i] for i in packet.data[4:] if i in self._servos]
            return {servo.id: servo.read(address, size) for servo in asked}
        if packet.code == Instruction.SYNC_WRITE:
            address, size = packet.words(2)
            for start in range(4, len(packet.data), 1 + size):
                if servo := self._servos.get(packet.data[start]):
                    servo.write(address, packet.data[start + 1 : start + 1 + size])
            self._pursue(address)
            return {}
        if packet.code == Instruction.PING and packet.servo == BROADCAST:
            return {servo.id: servo.ping() for servo in self._servos.values()}
        servo = self._servos.get(packet.servo)
        return {servo.id: self._obey_one(servo, packet)} if servo else {}

    def _obey_one(self, servo: Servo, packet: Instruction) -> tuple[Result, bytes]:
        if packet.code == Instruction.PING:
            return servo.ping()
        if packet.code == Instruction.READ:
            address, size = packet.words(2)
            return servo.read(address, size)
        if packet.code == Instruction.WRITE:
            (address,) = packet.words(1)
            result = servo.write(address, packet.data[2:])
            self._pursue(address)
            return result, b""
        if packet.code == Instruction.REBOOT:
            servo.reboot()
            return Result.OK, b""
        return Result.INSTRUCTION, b""

    def _pursue(self, address: int) -> None:
        """After a write of goals: the servos with torque pursue them."""
        servos = self._servos.values()
        if address != GOAL[0] or not any(servo.get(TORQUE) for servo in servos):
            return
        target = self._arm.target.copy()
        for j, servo in enumerate(servos):
            if servo.get(TORQUE) and servo.get(WATCHDOG) != TRIPPED:
                target[j] = servo.goal
        self._arm.receive(target)

    def _reset(self, seed: str) -> None:
        """The arm is put elsewhere: servos that have torque hold it there."""
        self._arm.reset(int(seed))
        for servo in self._servos.values():
            servo.measure()
            servo.set(GOAL, servo.get(POSITION))

    def _reboot(self) -> None:
        for servo in self._servos.values():
            servo.reboot()

    def _freeze(self, seconds: str) -> None:
        self._frozen_until = time.monotonic() + float(seconds)

    def _jump(self, servo: str, ticks: str, seconds: str) -> None:
        self._servos[int(servo)].offset = int(ticks)
        self._jump_until = time.monotonic() + float(seconds)

    def _set(self, servo: str, address: str, size: str, value: str) -> None:
        self._servos[int(servo)].set((int(address), int(size)), int(value))


if __name__ == "__main__":
    serve("dynamixel", Bus)
