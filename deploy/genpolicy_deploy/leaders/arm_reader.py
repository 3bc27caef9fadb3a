"""The process behind a leader arm: lets it go limp and tells where its joints are.

``python -m genpolicy_deploy.leaders.arm_reader --fd N --config TOML`` answers on an inherited
``SOCK_SEQPACKET`` with a JSON greeting (``joints``, or ``error``) and then with messages of
``reading_dtype``; it ends when the other side hangs up. A process of its own, because a driver may
wait for its bus, which the control loop may not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
from pathlib import Path

import numpy as np

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.leaders.leader_file import load_leader, reading_dtype
from genpolicy_deploy.realtime import Ticker
from genpolicy_deploy.robots.arm_config import ArmConfig
from genpolicy_deploy.robots.device import Device, DeviceState
from genpolicy_deploy.robots.drivers import build


def serve(connection: socket.socket, config: ArmConfig, device: Device) -> None:
    """Report until the other side hangs up."""
    device.connect()
    device.stop()  # limp; nothing is ever written to it
    connection.send(json.dumps({"joints": config.joints}).encode())
    connection.setblocking(False)
    state = DeviceState.of(device.spec)
    message = np.zeros(1, reading_dtype(len(config.joints)))
    ticker, seq = Ticker(config.rate_hz), 0
    while not _hung_up(connection):
        device.read(state)
        state.faults.clear()  # what they come to shows in the age
        if state.seq != seq:
            seq = state.seq
            message["t_ns"], message["position"][0] = state.t_ns, state.position
            with contextlib.suppress(BlockingIOError):
                connection.send(message.view(np.uint8).data)
        ticker.wait()


def _hung_up(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="Leader arm of genpolicy-deploy.")
    parser.add_argument("--fd", type=int, required=True, help="inherited socket")
    parser.add_argument("--config", type=Path, required=True)
    args = parser.parse_args()
    with socket.socket(fileno=args.fd) as connection, contextlib.ExitStack() as stack:
        try:
            config = load_leader(args.config)
            device = build(config)
            stack.callback(device.close)
            stack.callback(device.stop)
            serve(connection, config, device)
        except GenpolicyError as error:
            connection.setblocking(True)
            with contextlib.suppress(OSError):
                connection.send(json.dumps({"error": str(error)}).encode())
        except OSError:
            return  # nobody listens any more


if __name__ == "__main__":
    main()
