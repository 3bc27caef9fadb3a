"""The dashboard server of a UR controller: what state the robot is in, one line per question."""

from __future__ import annotations

import socket

from genpolicy.spec import GenpolicyError

PORT = 29999
TIMEOUT_S = 2.0
_GREETING = "Universal Robots Dashboard Server"


def check_ready(host: str, arm: str) -> None:
    """Refuse an arm that cannot be moved now, and say what a person has to do about it.

    Args:
        host: of the controller.
        arm: the model that is expected, as the dashboard names it (``UR5`` for a UR5e).

    Raises:
        GenpolicyError: nothing answers, another arm, not powered, stopped, or in local control.
    """
    where = f"robot 'ur' at {host}"
    try:
        with socket.create_connection((host, PORT), TIMEOUT_S) as server:
            server.settimeout(TIMEOUT_S)
            if _GREETING not in _line(server):
                raise GenpolicyError(f"{where}: port {PORT} is not a UR dashboard: check the host")
            model = _ask(server, "get robot model")
            mode = _ask(server, "robotmode").removeprefix("Robotmode: ")
            safety = _ask(server, "safetystatus").removeprefix("Safetystatus: ")
            remote = _ask(server, "is in remote control")
    except OSError as error:
        reason = error.strerror or error
        raise GenpolicyError(
            f"{where}: its dashboard does not answer ({reason}): check cable, host and power"
        ) from error
    if model != arm:
        raise GenpolicyError(f"{where}: is a {model or 'robot without a name'}, not a {arm}")
    if safety not in ("NORMAL", "REDUCED"):
        raise GenpolicyError(f"{where}: safety status {safety}: clear it at the pendant")
    if mode != "RUNNING":
        raise GenpolicyError(f"{where}: robot mode {mode}: switch it on and release the brakes")
    if remote == "false":
        raise GenpolicyError(f"{where}: is in local control: choose Remote Control at the pendant")


def _ask(server: socket.socket, question: str) -> str:
    server.sendall(question.encode() + b"\n")
    return _line(server)


def _line(server: socket.socket) -> str:
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = server.recv(1)
        if not byte:
            raise ConnectionResetError(104, "it hung up")
        line += byte
    return line.decode(errors="replace").strip()
