"""The program that tells the puppet where to go, 50 times a second by UDP, or fails to."""

from __future__ import annotations

import math
import socket
import struct
import threading
import time
from collections.abc import Sequence

from faults.puppet import FAULTS, OBJECT

RATE_HZ = 50.0
RADIUS_M, TURN_S = 0.06, 2.5  # of the circle on which the hand is led


class Sensor:
    """A thread that sends until ``close``.

    Attributes:
        port: where to.
        fault: ``silent``, ``nan``, ``inf``, ``short``, ``long``, ``flood`` or empty.
        policy: what the puppet shall do wrong, one of ``FAULTS``.
        slow: how long it shall compute.
    """

    def __init__(self, centre: Sequence[float]) -> None:
        self._centre = tuple(centre)
        self.fault, self.policy, self.slow = "", "none", 0.0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Fall silent for good."""
        self._closed.set()
        self._thread.join()

    def well(self) -> None:
        """All faults end."""
        self.fault, self.policy, self.slow = "", "none", 0.0

    def _send(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not self._closed.wait(1.0 / RATE_HZ):
                for packet in self._packets():
                    sender.sendto(packet, ("127.0.0.1", self.port))

    def _packets(self) -> list[bytes]:
        numbers = self._numbers()
        packet = struct.pack(f"<{OBJECT}d", *numbers)
        bad = {"nan": math.nan, "inf": math.inf}.get(self.fault)
        if bad is not None:
            return [struct.pack(f"<{OBJECT}d", bad, *numbers[1:])]
        return {
            "silent": [],
            "short": [packet[:-8]],
            "long": [packet + packet],
            "flood": [packet] * 400,
        }.get(self.fault, [packet])

    def _numbers(self) -> list[float]:
        turn = 2.0 * math.pi * time.monotonic() / TURN_S
        x, y, z = self._centre
        place = [x + RADIUS_M * math.cos(turn), y + RADIUS_M * math.sin(turn), z]
        grip, yaw = math.sin(0.5 * turn), 0.3 * math.sin(turn)
        fault = FAULTS.index(self.policy) + 0.25  # rounded down by the puppet
        return [*place, grip, yaw, self.slow, fault, 0.0, 0.0, 0.0]
