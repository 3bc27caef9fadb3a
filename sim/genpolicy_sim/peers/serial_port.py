"""A serial port with simulated servos behind it: a pseudo terminal, and a wire's failures."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import tempfile
import time
import tty
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from genpolicy_sim.peers.arm import PeerArm
from genpolicy_sim.peers.orders import Order, Orders, announce

PERIOD_S = 0.002  # of the physics between packets


class SerialPort:
    """``path`` is what a driver opens. It stays the same when the port is pulled out and put back.

    ``orders`` are these; N counts answers (packets of servos) to come:

    - ``drop N``, ``crc N``, ``partial N``: they do not come, are damaged, are cut short;
    - ``noise N``: N bytes of garbage before the next answer;
    - ``silent S``: for S seconds nothing is heard and nothing said;
    - ``unplug``, ``plug``: the port is gone, is back.
    """

    def __init__(self, name: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self.path = self._folder / "port"
        self._left: dict[str, int] = dict.fromkeys(("drop", "crc", "partial"), 0)
        self._noise = 0
        self._silent_until = 0.0
        self._rng = np.random.default_rng(0)
        self._ours, self._theirs = -1, -1
        self.plug()

    @property
    def orders(self) -> dict[str, Order]:
        """For ``Orders``."""
        counted: dict[str, Order] = {
            name: lambda count, name=name: self._left.update({name: int(count)})
            for name in self._left
        }
        return counted | {
            "noise": self._make_noise,
            "silent": self._be_silent,
            "plug": self.plug,
            "unplug": self.unplug,
        }

    def plug(self) -> None:
        """Put the port there."""
        self.unplug()
        self._ours, self._theirs = os.openpty()
        tty.setraw(self._theirs)
        os.set_blocking(self._ours, False)
        self.path.symlink_to(os.ttyname(self._theirs))

    def unplug(self) -> None:
        """Take the port away: drivers find it hung up."""
        self.path.unlink(missing_ok=True)
        for end in self.ends + ([self._theirs] if self._theirs >= 0 else []):
            os.close(end)
        self._ours, self._theirs = -1, -1

    def close(self) -> None:
        """Leave nothing behind."""
        self.unplug()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def ends(self) -> list[int]:
        """For ``select``: our end, unless it is unplugged."""
        return [self._ours] if self._ours >= 0 else []

    def receive(self) -> bytes:
        """What has come, without waiting."""
        try:
            received = os.read(self._ours, 4096) if self.ends else b""
        except BlockingIOError:
            return b""
        return b"" if time.monotonic() < self._silent_until else received

    def send(self, packets: Sequence[bytes]) -> None:
        """Send answers, one after the other, or what is left of them."""
        data = b"".join(self._spoil(packet) for packet in packets)
        if data and self.ends:
            with contextlib.suppress(BlockingIOError):  # nobody reads
                os.write(self._ours, data)

    def _spoil(self, packet: bytes) -> bytes:
        noise, self._noise = self._rng.bytes(self._noise), 0
        for name, spoilt in (
            ("drop", b""),
            ("crc", packet[:-1] + bytes((packet[-1] ^ 0x55,))),
            ("partial", packet[: len(packet) // 2]),
        ):
            if self._left[name] > 0:
                self._left[name] -= 1
                return noise + spoilt
        return noise + packet

    def _make_noise(self, count: str) -> None:
        self._noise = int(count)

    def _be_silent(self, seconds: str) -> None:
        self._silent_until = time.monotonic() + float(seconds)


class Bus(Protocol):
    """Servos that move an arm."""

    def receive(self, data: bytes) -> list[bytes]:
        """Obey the instructions in ``data``; the status packets that answer them, in order."""
        ...

    def orders(self) -> dict[str, Order]:
        """For ``Orders``."""
        ...


def serve(name: str, make_bus: Callable[[PeerArm], Bus]) -> None:
    """The process of an arm of servos, called ``name``, until its stdin closes."""
    parser = argparse.ArgumentParser(description=f"Simulated arm of {name} servos.")
    parser.add_argument("--objects", type=int, metavar="PORT", help="send what Lift observes here")
    parser.add_argument("--seed", type=int, default=0, help="episode of Lift where the arm starts")
    args = parser.parse_args()
    arm = PeerArm(args.objects, args.seed)
    bus, port = make_bus(arm), SerialPort(name)
    orders = Orders(arm, bus.orders() | port.orders)
    try:
        announce(port=str(port.path))
        while orders.poll():
            select.select([orders, *port.ends], [], [], PERIOD_S)
            arm.advance(time.monotonic())
            port.send(bus.receive(port.receive()))
    finally:
        port.close()
