"""An arm behind LeRobot's four methods: the object that a program holds, and the arm at its end.

``python -m genpolicy_sim.peers.lerobot [--objects PORT] [--seed SEED]`` announces ``port`` and
serves ``SimulatedRobot`` objects, which ask by UDP on this computer. Values are LeRobot's: degrees,
and 0 (closed) to 100 (open) for the gripper.

Orders besides ``orders``' own; N counts answers, S is in seconds:

- ``drop N``: the next N answers do not come: the object raises ``ConnectionError``;
- ``nan N``, ``partial N``, ``word N``: they hold a value that is not finite, lack a joint, or have
  a word in place of a number;
- ``silent S``: the arm neither hears nor answers; ``hang S``: the object's method does not return;
- ``freeze S``: measurements do not change; ``uncalibrated``: it says so from now on;
- ``unplug``, ``plug``: nothing can be asked or commanded, objects cannot connect; they can again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import select
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from genpolicy_sim.peers.arm import PeerArm
from genpolicy_sim.peers.orders import Orders, announce

CONTROL_HZ = 500.0
ANSWER_S = 0.02  # the object waits for it
CONNECT_S = 0.5
SCALE = (180.0 / math.pi,) * 7 + (100.0 / 0.04,)  # LeRobot's units per rad, and per m


class SimulatedRobot:
    """What a function named by ``driver.factory`` returns.

    Args:
        port: that the peer announced.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._asked = 0

    def connect(self, calibrate: bool = True) -> None:
        """Find the arm; to calibrate would take a person.

        Raises:
            ConnectionError: it is not there.
        """
        if calibrate:
            raise RuntimeError("calibration waits for a person to press ENTER")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", self._port))
        answer = self._ask({"connect": True}, CONNECT_S)
        self.is_calibrated = answer["calibrated"]
        self.action_features = dict.fromkeys(answer["keys"], float)

    def get_observation(self) -> dict[str, Any]:
        """Where the joints are.

        Raises:
            ConnectionError: no answer.
        """
        return self._ask({}, ANSWER_S)

    def send_action(self, action: Mapping[str, float]) -> Mapping[str, float]:
        """Give the joints goals.

        Raises:
            ConnectionError: no answer.
        """
        self._ask({"action": dict(action)}, ANSWER_S)
        return action

    def disconnect(self) -> None:
        """Leave the arm as it is."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._ask({"disconnect": True}, ANSWER_S)
            self._socket.close()
            self._socket = None

    def _ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        if self._socket is None:
            raise ConnectionError("not connected")
        self._asked += 1
        self._socket.send(json.dumps({"id": self._asked, **request}).encode())
        deadline = time.monotonic() + timeout_s
        while True:
            self._socket.settimeout(max(deadline - time.monotonic(), 1e-4))
            try:
                answer = json.loads(self._socket.recv(4096))
            except OSError as error:
                raise ConnectionError(f"no answer on port {self._port}") from error
            if answer.pop("hang", 0.0):
                deadline = math.inf
                time.sleep(3600.0)
            if answer.pop("id") == self._asked:
                return answer


class Peer:
    """Answers requests and does physics."""

    def __init__(self, arm: PeerArm) -> None:
        self.arm = arm
        self.keys = [f"{name}.pos" for name in arm.names]
        self._scale = np.array(SCALE)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        faults, spans = ["drop", "nan", "partial", "word"], ["silent", "freeze", "hang"]
        self._faults: dict[str, int] = dict.fromkeys(faults, 0)  # answers to come
        self._ends: dict[str, float] = dict.fromkeys(spans, 0.0)
        self._plugged = self._calibrated = True
        self._connected = False
        self._shown = arm.position.copy()

    def fileno(self) -> int:
        """For ``select``."""
        return self._socket.fileno()

    def advance(self, now: float) -> None:
        """Answer what was asked; physics up to ``now``."""
        self.arm.advance(now)
        if now >= self._ends["freeze"]:
            self._shown[:] = self.arm.position
        while True:
            try:
                data, sender = self._socket.recvfrom(4096)
            except OSError:
                return
            if not self._plugged or now < self._ends["silent"]:
                continue
            request = json.loads(data)
            answer = self._answer(request)
            if now < self._ends["hang"]:
                answer["hang"] = True
            if not self._took("drop"):
                self._socket.sendto(json.dumps({"id": request["id"], **answer}).encode(), sender)

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if "connect" in request:
            self._connected = True
            return {"calibrated": self._calibrated, "keys": self.keys}
        if "disconnect" in request:
            self._connected = False
            return {}
        if "action" in request:
            values = [request["action"][key] for key in self.keys]
            self.arm.receive(np.array(values) / self._scale)
            return {}
        answer: dict[str, Any] = dict(
            zip(self.keys, (self._shown * self._scale).tolist(), strict=True)
        )
        if self._took("nan"):
            answer[self.keys[2]] = math.nan
        if self._took("partial"):
            del answer[self.keys[2]]
        if self._took("word"):
            answer[self.keys[2]] = "moving"
        return answer

    def _took(self, fault: str) -> bool:
        there = self._faults[fault] > 0
        self._faults[fault] -= there
        return there

    def orders(self) -> Orders:
        """See the module's docstring."""
        faults = {
            name: lambda count, name=name: self._faults.update({name: int(count)})
            for name in self._faults
        }
        spans = {
            name: lambda span, name=name: self._ends.update({name: time.monotonic() + float(span)})
            for name in self._ends
        }
        switches = {
            "unplug": lambda: setattr(self, "_plugged", False),
            "plug": lambda: setattr(self, "_plugged", True),
            "uncalibrated": lambda: setattr(self, "_calibrated", False),
            "state": lambda: self.arm.state() | {"connected": self._connected},
        }
        return Orders(self.arm, {**faults, **spans, **switches})


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="Simulated arm behind LeRobot's interface.")
    parser.add_argument("--objects", type=int, metavar="PORT", help="UDP: where the cube is")
    parser.add_argument("--seed", type=int, default=0, help="episode of Lift that it starts in")
    args = parser.parse_args()
    peer = Peer(PeerArm(args.objects, args.seed))
    orders = peer.orders()
    announce(port=peer.port)
    due = time.monotonic()
    while orders.poll():
        now = time.monotonic()
        peer.advance(now)
        due = max(due + 1.0 / CONTROL_HZ, now)
        select.select([orders, peer], [], [], max(due - time.monotonic(), 0.0))


if __name__ == "__main__":
    main()
