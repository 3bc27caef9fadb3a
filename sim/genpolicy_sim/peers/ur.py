"""A UR5e's controller: ``python -m genpolicy_sim.peers.ur [--host 127.0.0.2]``.

It listens where a real one does, because the SDK knows no other ports: dashboard 29999, scripts
30001 to 30003, RTDE 30004. Several of them run on one computer at addresses 127.0.0.x. Joints move
with MuJoCo's physics; what the SDK's program does is acted out by ``ur_controller``.

Orders, besides those of ``orders``:

    drop N, duplicate N, partial N, nan N, noise N    the next N packages
    silent S, freeze S, delay D S, jump RAD S, current A S    for S seconds
    protective, safeguard, estop, normal    safety mode, ``normal`` being the operator's all-clear
    mode NAME, local, remote, end    at the pendant; ``end`` ends the program
    unplug, plug    hang up and answer nobody; listen again
"""

from __future__ import annotations

import argparse
import selectors
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from genpolicy_sim.peers import ur_controller
from genpolicy_sim.peers.arm import PeerArm
from genpolicy_sim.peers.orders import Order, Orders, announce
from genpolicy_sim.peers.ur_controller import CYCLE_S, Controller
from genpolicy_sim.peers.ur_rtde import Session
from genpolicy_sim.peers.ur_wire import Wire

PORTS = {29999: "dashboard", 30001: "script", 30002: "script", 30003: "script", 30004: "rtde"}
MAX_CYCLES = 50  # that a late process makes up for at once
_MODES = {"power_off": 3, "idle": 5, "backdrive": 6, "running": 7}
_SAFETY = {
    "protective": ur_controller.PROTECTIVE_STOP,
    "safeguard": ur_controller.SAFEGUARD_STOP,
    "estop": ur_controller.ROBOT_EMERGENCY_STOP,
    "normal": ur_controller.NORMAL,
}
_NAMES = {1: "NORMAL", 3: "PROTECTIVE_STOP", 5: "SAFEGUARD_STOP", 7: "ROBOT_EMERGENCY_STOP"}


class Peer:
    """Sockets, controller and arm of one robot."""

    def __init__(self, host: str) -> None:
        self._host = host
        self.arm = PeerArm(model="ur5e.xml", cube=False)
        self._controller = Controller(self.arm.position)
        self._wire = Wire()
        self._selector = selectors.DefaultSelector()
        self._listeners: list[socket.socket] = []
        self._sessions: list[Session] = []
        self._start = time.monotonic()
        self._cycles = 0
        self.listen()
        self.advance()

    def listen(self) -> None:
        """Open the ports."""
        serve = {"dashboard": self._dashboard, "script": self._script, "rtde": self._rtde}
        for port, kind in PORTS.items():
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, port))
            listener.listen()
            self._listeners.append(listener)
            self._when_readable(
                listener, lambda s=listener, serve=serve[kind]: serve(s.accept()[0])
            )

    def hang_up(self) -> None:
        """Close the ports and reset all connections."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                self._forget(key.fileobj)
        self._listeners.clear()
        self._sessions.clear()

    def serve(self, orders: Orders) -> None:
        """Run until standard input closes."""
        while orders.poll():
            if self._wire.on("silent", time.monotonic()):
                time.sleep(CYCLE_S / 2)  # what arrives stays unread
            else:
                for key, _ in self._selector.select(CYCLE_S / 2):
                    key.data()
            self.advance()

    def advance(self) -> None:
        """Controller, arm and outputs up to now."""
        now = time.monotonic()
        cycles = int((now - self._start) / CYCLE_S)
        if cycles > self._cycles:
            for _ in range(min(cycles - self._cycles, MAX_CYCLES)):
                self._controller.cycle(now)
            self._cycles = cycles
            arm = self.arm
            arm.target[:] = self._controller.command
            arm.advance(now)
            self._controller.measure(arm.position, arm.velocity, arm.effort, cycles * CYCLE_S)
            self._wire.show(self._controller.values, now)
        self._wire.publish(self._sessions, now)

    def faults(self) -> dict[str, Order]:
        """The orders that are this robot's own."""
        controller = self._controller
        orders: dict[str, Order] = {
            "state": self._state,
            "reset": self._reset,
            "mode": self._mode,
            "local": lambda: setattr(controller, "remote", False),
            "remote": lambda: setattr(controller, "remote", True),
            "end": controller.end_program,
            "unplug": self.hang_up,
            "plug": self.listen,
        }
        for name, mode in _SAFETY.items():
            orders[name] = partial(controller.safety, mode)
        for name in ("drop", "duplicate", "partial", "nan", "noise"):
            orders[name] = partial(self._next, name)
        for name in ("silent", "freeze", "delay", "jump", "current"):
            orders[name] = partial(self._last, name)
        return orders

    def _next(self, fault: str, count: str) -> None:
        self._wire.next[fault] += int(count)

    def _last(self, fault: str, *numbers: str) -> None:
        *size, duration = map(float, numbers)
        if bool(size) != (fault in ("delay", "jump", "current")):
            raise ValueError("too many or too few numbers")
        self._wire.size[fault] = size[0] if size else 0.0
        self._wire.until[fault] = time.monotonic() + duration

    def _mode(self, name: str) -> None:
        self._controller.values["robot_mode"] = _MODES[name]
        self._controller.end_program()

    def _reset(self, seed: str) -> None:
        self.arm.reset(int(seed))
        self._controller.reset(self.arm.position)

    def _state(self) -> dict[str, Any]:
        controller = self._controller
        goals, controller.goals = controller.goals, []
        return self.arm.state() | {
            "goals": goals,
            "running": controller.running,
            "programs": controller.programs,
            "safety_mode": controller.values["safety_mode"],
        }

    def _when_readable(self, file: Any, call: Callable[[], Any]) -> None:
        self._selector.register(file, selectors.EVENT_READ, call)

    def _forget(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

    def _rtde(self, client: socket.socket) -> None:
        receive = self._controller.receive
        session = Session(
            client, self._wire.shown, lambda inputs: receive(inputs, time.monotonic())
        )
        self._sessions.append(session)

        def serve() -> None:
            if not session.receive():
                self._sessions.remove(session)
                self._forget(client)

        self._when_readable(client, serve)

    def _script(self, client: socket.socket) -> None:
        """Programs: from ``def`` to the ``end`` that stands at the beginning of a line."""
        text = bytearray()

        def serve() -> None:
            data = self._read(client)
            text.extend(data)
            if text.endswith(b"\nend\n"):
                self._controller.load(text.decode())
                text.clear()

        self._when_readable(client, serve)

    def _dashboard(self, client: socket.socket) -> None:
        client.sendall(b"Connected: Universal Robots Dashboard Server\n")

        def serve() -> None:
            for line in self._read(client).decode().splitlines():
                client.sendall(self._answer(line.strip()).encode() + b"\n")

        self._when_readable(client, serve)

    def _read(self, client: socket.socket) -> bytes:
        try:
            data = client.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._forget(client)
        return data

    def _answer(self, question: str) -> str:
        values = self._controller.values
        if question == "stop":
            self._controller.end_program()
        modes = {number: name.upper() for name, number in _MODES.items()}
        return {
            "PolyscopeVersion": "URSoftware 5.13.0.1220 (Nov 01 2022)",
            "get serial number": "20205500123",
            "get robot model": "UR5",
            "robotmode": f"Robotmode: {modes[values['robot_mode']]}",
            "safetystatus": f"Safetystatus: {_NAMES[values['safety_mode']]}",
            "is in remote control": "true" if self._controller.remote else "false",
            "stop": "Stopped",
        }.get(question, f"could not understand: '{question}'")


def main() -> None:
    """Serve until standard input closes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    host = parser.parse_args().host
    peer = Peer(host)
    announce(host=host)
    peer.serve(Orders(peer.arm, peer.faults()))


if __name__ == "__main__":
    main()
