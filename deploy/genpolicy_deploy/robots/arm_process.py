"""The arm's process: driver and servo of one arm, apart from the control loop.

``python -m genpolicy_deploy.robots.arm_process --fd N --stop-fd M`` serves one loop over the
messages of ``arm_messages`` and ends when that loop does, however it does; ``supervisor`` has the
rules. It is the only place where joint commands are made and sent to a driver, so the joints'
limits hold at the wire whatever the loop does, and a driver that blocks holds up nothing else.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import time
from pathlib import Path
from types import FrameType

import numpy as np

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.realtime import Ticker, soft_realtime
from genpolicy_deploy.robots.arm_channel import Channel
from genpolicy_deploy.robots.arm_config import ArmConfig
from genpolicy_deploy.robots.arm_toml import parse
from genpolicy_deploy.robots.device import Device, DeviceState
from genpolicy_deploy.robots.drivers import build
from genpolicy_deploy.robots.supervisor import Supervisor

FIFO_PRIORITY = 75  # below the control loop's
FIRST_MEASUREMENT_S = 5.0


def first_measurement(device: Device, config: ArmConfig) -> DeviceState:
    """Wait for one.

    Raises:
        GenpolicyError: none came in time; says what came instead.
    """
    state = DeviceState.of(device.spec)
    before, fault = state.seq, ""
    deadline = time.monotonic() + FIRST_MEASUREMENT_S
    while time.monotonic() < deadline:
        device.read(state)
        fault = state.faults[-1] if state.faults else fault
        state.faults.clear()
        if state.seq != before and np.isfinite(state.position).all():
            return state
        before = state.seq
        time.sleep(1.0 / config.rate_hz)
    raise GenpolicyError(
        f"{device.spec.name}: no measurement within {FIRST_MEASUREMENT_S:g} s"
        + (f" ({fault})" if fault else "")
    )


def serve(connection: socket.socket, stop_fd: int) -> None:
    """Connect the arm that the first message describes, and move it until something ends that.

    Raises:
        GenpolicyError: the arm is not there, or not the one described.
    """
    connection.settimeout(FIRST_MEASUREMENT_S)
    document = json.loads(connection.recv(1 << 16))
    source = Path(document["source"]) if document["source"] else None
    config = parse(document["driver"], document["options"], source)
    device = build(config)
    spec = device.spec
    effort = len(config.joints) if spec.reports_effort else 0
    channel = Channel(connection, stop_fd)
    channel.layout(len(config.axes), len(config.joints), effort)
    ticker = Ticker(config.rate_hz)
    supervisor = Supervisor(config, device, channel, ticker)
    _stop_on_signals(supervisor)
    try:
        device.connect()
        try:
            supervisor.begin(first_measurement(device, config))
            greeting = {"device": spec.name, "on_silence": spec.on_silence, "effort": effort}
            connection.send(json.dumps(greeting).encode())
            with soft_realtime(FIFO_PRIORITY):
                ticker.start()
                supervisor.run()
        finally:
            device.stop()
            if supervisor.reason is not None:
                channel.last_words(supervisor.reason)
    finally:
        device.close()


def _stop_on_signals(supervisor: Supervisor) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        supervisor.signalled = signal.Signals(number).name

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="Arm process of genpolicy-deploy.")
    parser.add_argument("--fd", type=int, required=True, help="inherited socket")
    parser.add_argument("--stop-fd", type=int, required=True, help="inherited pipe: says stop")
    args = parser.parse_args()
    with socket.socket(fileno=args.fd) as connection:
        try:
            serve(connection, args.stop_fd)
        except GenpolicyError as error:
            connection.setblocking(True)
            connection.send(json.dumps({"error": str(error)}).encode())


if __name__ == "__main__":
    main()
