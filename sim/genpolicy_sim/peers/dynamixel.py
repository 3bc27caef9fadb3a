"""Eight Dynamixel X servos on a bus, as a serial port: a Panda with Protocol 2.0.

``python -m genpolicy_sim.peers.dynamixel [--objects PORT] [--seed SEED]`` announces ``port``, a
link to a pseudo terminal. Ids 1 to 7 are the arm's joints (XM430-W350), 8 the gripper (XL430-W250);
``dynamixel_servo`` has their calibration. They behave as the e-manual says where it matters to a
driver: control table with access rules and limits, Bus Watchdog, Hardware Error Status with its
alert bit and shutdown, goals that act as soon as torque comes on.

Orders besides ``orders``' own; N counts status packets, S is in seconds:

- ``drop N``, ``crc N``, ``partial N``, ``noise N``: the next N answers do not come, are damaged,
  cut short, preceded by N bytes of garbage (only the next);
- ``silent S``: servos neither hear nor answer; ``mute ID S``: one does not answer;
- ``freeze S``: measurements do not change; ``jump ID TICKS S``: one is off by so many ticks;
- ``error ID KIND``: a hardware error (voltage, overheating, encoder, shock, overload);
- ``set ID ADDRESS SIZE VALUE``: put a value into a control table;
- ``unplug``, ``plug``: the port is gone, is back.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import tempfile
import time
import tty
from pathlib import Path

import numpy as np

from genpolicy_sim.peers.arm import PeerArm
from genpolicy_sim.peers.dynamixel_bus import BROADCAST, Instruction, Receiver, Result, status
from genpolicy_sim.peers.dynamixel_servo import (
    ERRORS,
    GOAL,
    MODELS,
    TORQUE,
    TRIPPED,
    WATCHDOG,
    Servo,
)
from genpolicy_sim.peers.orders import Orders, announce


class Bus:
    """All servos at the end of one pseudo terminal, and what goes wrong there."""

    def __init__(self, arm: PeerArm) -> None:
        self._arm = arm
        self._servos = {servo.id: servo for servo in (Servo(arm, j) for j in range(len(MODELS)))}
        arm.torque = False
        self._faults = dict.fromkeys(("drop", "crc", "partial"), 0)  # answers to come
        self._until = {"silent": 0.0, "freeze": 0.0, "jump": 0.0}
        self._muted: dict[int, float] = {}
        self._noise = b""
        self._heard = time.monotonic()
        self._receiver = Receiver()
        self._folder = Path(tempfile.mkdtemp(prefix="dynamixel-"))
        self.port = self._folder / "port"
        self._ends: tuple[int, ...] = ()  # the pty's: ours, the driver's
        self.plug()

    def orders(self) -> Orders:
        """What people and tests can do to it."""
        faults = {
            name: lambda n, name=name: self._faults.update({name: int(n)}) for name in self._faults
        }
        return Orders(
            self._arm,
            {
                **faults,
                "noise": self._make_noise,
                "silent": lambda s: self._start("silent", s),
                "mute": lambda i, s: self._muted.update({int(i): time.monotonic() + float(s)}),
                "freeze": lambda s: self._start("freeze", s),
                "jump": self._jump,
                "error": lambda i, kind: self._servos[int(i)].fail(ERRORS[kind]),
                "set": lambda i, address, size, value: self._servos[int(i)].set(
                    (int(address), int(size)), int(value)
                ),
                "plug": self.plug,
                "unplug": self.unplug,
            },
        )

    def plug(self) -> None:
        """Make the port."""
        self.unplug()
        self._ends = os.openpty()
        tty.setraw(self._ends[1])
        os.set_blocking(self._ends[0], False)
        self.port.symlink_to(os.ttyname(self._ends[1]))

    def unplug(self) -> None:
        """Take the port away."""
        self.port.unlink(missing_ok=True)
        for end in self._ends:
            os.close(end)
        self._ends = ()

    def close(self) -> None:
        """Leave nothing behind."""
        self.unplug()
        shutil.rmtree(self._folder, ignore_errors=True)

    def serve(self, orders: Orders) -> None:
        """Physics, packets and orders, until stdin closes."""
        while orders.poll():
            select.select([orders, *self._ends[:1]], [], [], 0.002)
            with contextlib.suppress(BlockingIOError):
                self._listen(os.read(self._ends[0], 4096) if self._ends else b"")
            now = time.monotonic()
            self._arm.advance(now)
            if now > self._until["freeze"]:
                self._measure(now)
            for servo in self._servos.values():
                servo.watch(now - self._heard)

    def _measure(self, now: float) -> None:
        for servo in self._servos.values():
            if now > self._until["jump"]:
                servo.offset = 0
            servo.measure()

    def _listen(self, received: bytes) -> None:
        if time.monotonic() < self._until["silent"]:
            return
        for packet in self._receiver.packets(received):
            self._heard = time.monotonic()
            answer = b"".join(self._spoil(a) for a in self._answers(packet))
            with contextlib.suppress(BlockingIOError):  # nobody reads
                os.write(self._ends[0], answer)

    def _answers(self, packet: Instruction) -> list[bytes]:
        """Carry out an instruction; the status packets that it causes."""
        now = time.monotonic()
        answers = self._carry_out(packet)
        return [
            status(servo, result, data, self._servos[servo].alert)
            for servo, (result, data) in answers.items()
            if self._muted.get(servo, 0.0) < now
        ]

    def _carry_out(self, packet: Instruction) -> dict[int, tuple[Result, bytes]]:
        """{servo: (result, data)} of the servos that answer."""
        if packet.code == Instruction.SYNC_READ:
            address, size = packet.words(2)
            asked = [self._servos[i] for i in packet.data[4:] if i in self._servos]
            return {servo.id: servo.read(address, size) for servo in asked}
        if packet.code == Instruction.SYNC_WRITE:
            self._sync_write(packet)
            return {}
        if packet.code == Instruction.PING and packet.servo == BROADCAST:
            return {s.id: s.ping() for s in self._servos.values()}
        servo = self._servos.get(packet.servo)
        return {servo.id: self._carry_out_one(servo, packet)} if servo else {}

    def _carry_out_one(self, servo: Servo, packet: Instruction) -> tuple[Result, bytes]:
        if packet.code == Instruction.PING:
            return servo.ping()
        if packet.code == Instruction.READ:
            return servo.read(*packet.words(2))
        if packet.code == Instruction.WRITE:
            result = servo.write(packet.words(1)[0], packet.data[2:])
            if packet.words(1)[0] == GOAL[0]:
                self._pursue()
            return result, b""
        if packet.code == Instruction.REBOOT:
            servo.reboot()
            return Result.OK, b""
        return Result.INSTRUCTION, b""

    def _sync_write(self, packet: Instruction) -> None:
        address, size = packet.words(2)
        for start in range(4, len(packet.data), 1 + size):
            if servo := self._servos.get(packet.data[start]):
                servo.write(address, packet.data[start + 1 : start + 1 + size])
        if address == GOAL[0]:
            self._pursue()

    def _pursue(self) -> None:
        """The servos with torque pursue their goals."""
        if not any(servo.get(TORQUE) for servo in self._servos.values()):
            return
        target = self._arm.target.copy()
        for j, servo in enumerate(self._servos.values()):
            if servo.get(TORQUE) and servo.get(WATCHDOG) != TRIPPED:
                target[j] = servo.goal
        self._arm.receive(target)

    def _spoil(self, answer: bytes) -> bytes:
        """An answer as it leaves a bad wire."""
        noise, self._noise = self._noise, b""
        for kind, count in self._faults.items():
            if count:
                self._faults[kind] -= 1
                last = answer[-1] ^ 0xFF
                spoilt = {"drop": b"", "partial": answer[: len(answer) // 2]}
                return noise + spoilt.get(kind, answer[:-1] + bytes([last]))
        return noise + answer

    def _start(self, fault: str, seconds: str) -> None:
        self._until[fault] = time.monotonic() + float(seconds)

    def _jump(self, servo: str, ticks: str, seconds: str) -> None:
        self._servos[int(servo)].offset = int(ticks)
        self._start("jump", seconds)

    def _make_noise(self, count: str) -> None:
        self._noise = np.random.default_rng(0).bytes(int(count))


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="Simulated arm of Dynamixel servos.")
    parser.add_argument("--objects", type=int, help="UDP port to send Lift's observation 'object'")
    parser.add_argument("--seed", type=int, default=0, help="episode of Lift to start in")
    args = parser.parse_args()
    bus = Bus(PeerArm(args.objects, args.seed))
    try:
        orders = bus.orders()
        announce(port=str(bus.port))
        bus.serve(orders)
    finally:
        bus.close()


if __name__ == "__main__":
    main()
