"""A driver of servos on a bus, built from its shipped file, and the simulated arm at its port."""

from __future__ import annotations

from typing import Any, ClassVar

from genpolicy_deploy.robots import arm_toml, drivers
from genpolicy_deploy.robots.config import load_config
from genpolicy_deploy.robots.device import LOST_COMMANDS, DeviceState
from genpolicy_deploy.robots.silence import UNANSWERED
from peer_process import PeerProcess
from rigs import CONFIGS

WELL = ("drop 0", "crc 0", "partial 0", "noise 0", "silent 0", "freeze 0")


def build(driver: str, port: str, stop: str = "hold", **changes: Any) -> Any:
    """As the file says, but for ``changes`` of ``[driver]``."""
    path = CONFIGS / f"{driver}.toml"
    options = load_config(path, driver) | {"stop": stop}
    options["driver"] |= {"port": port, **changes}
    return drivers.build(arm_toml.parse(driver, options, path))


def mend(peer: PeerProcess, *orders: str) -> PeerProcess:
    """At the start of episode 0, with nothing wrong; ``orders`` end what only this arm can have."""
    for order in ("plug", *(f"mute {servo} 0" for servo in range(1, 9)), *orders, *WELL, "reset 0"):
        peer.order(order)
    return peer


class ServoArm:
    """A driver and its latest measurement."""

    driver: str
    # For answers that do come, from a process that may have to wait for a processor.
    patient: ClassVar[dict[str, float]] = {"reply_s": 5.0}

    def __init__(self, peer: PeerProcess, stop: str = "hold", **changes: Any) -> None:
        self.device = build(self.driver, peer.ready["port"], stop, **(self.patient | changes))
        self.state = DeviceState.of(self.device.spec)

    def read(self) -> list[str]:
        """The faults of one reading."""
        self.state.faults.clear()
        self.device.read(self.state)
        return self.state.faults

    def __enter__(self):
        self.device.connect()
        return self

    def __exit__(self, *_):
        self.device.close()


def check_goals_into_silence(arm: ServoArm, peer: PeerProcess) -> None:
    """They are withheld until somebody answers, and long enough for the joints to have rested."""
    while arm.read():
        pass  # a busy machine loses answers, too
    goal = arm.state.position.copy()
    assert arm.device.write(goal)
    peer.order("silent 1000")
    for _ in range(UNANSWERED - 1):
        assert arm.read()
        assert arm.device.write(goal)
    for _ in range(5):
        assert arm.read()
        assert not arm.device.write(goal)
    peer.order("silent 0")
    while arm.read():
        pass
    withheld = 0
    while not arm.device.write(goal):
        withheld += 1
    assert LOST_COMMANDS <= withheld <= LOST_COMMANDS + 1
