"""A rig per driver: its simulated arm as a process, and the TOML document that finds it.

``test_conformance`` runs the same tests on each. An entry needs

- the file in configs/robot that it begins with, and the joint that is moved;
- ``wire``: what the peer announces, as keys of ``[driver]``;
- ``damage``: orders for faults of single packets, which an arm rides out;
- ``wrong_arm``: keys of ``[driver]`` that make the arm another one than described; ``error``: a
  hardware error, and what the loop then hears; ``unplug`` and ``plug``; ``recover``;
- ``effort``: whether it is reported; ``lossless``: whether every command that the driver sends
  arrives one by one (elsewhere the newest wins); ``tick``: how finely the wire carries a position.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from peer_process import PeerProcess

CONFIGS = Path(__file__).parents[2] / "configs" / "robot"


@dataclass(frozen=True)
class Rig:
    """What is particular about one driver."""

    driver: str
    needs: str  # a package
    config: str
    damage: tuple[str, ...]
    wrong_arm: Mapping[str, Any]
    error: tuple[str, str] | None = None  # (order, part of the sentence)
    arguments: tuple[str, ...] = ()  # of the peer
    driver_keys: Mapping[str, Any] = field(default_factory=dict)
    recover: tuple[str, ...] = ()  # orders that end what a test may have left
    unplug: str = "unplug"
    plug: tuple[str, ...] = ("plug",)
    effort: bool = True
    lossless: bool = True
    tick: float = 1e-6  # rad
    hand: bool = True  # whether the suite commands its hand, too

    @property
    def available(self) -> bool:
        return find_spec(self.needs) is not None and (CONFIGS / self.config).exists()

    def wire(self, ready: Mapping[str, Any]) -> dict[str, Any]:
        """Keys of ``[driver]`` from what the peer announced."""
        if self.driver == "lerobot":
            return {"arguments": {"port": ready["port"]}}
        return {k: v for k, v in ready.items() if k in ("port", "host", "domain", "namespace")}


DOMAIN = 1 + os.getpid() % 200
UR_HOST = f"127.{1 + os.getpid() // 62500 % 250}.{os.getpid() // 250 % 250}.{2 + os.getpid() % 250}"
TURN_TICK = 6.2832 / 4096
SLOW_REPLY_S = 0.03  # for machines that do other things, too

RIGS = (
    Rig(
        driver="lerobot",
        needs="mujoco",
        config="lerobot.toml",
        damage=("drop 2", "nan 2", "partial 2", "word 2"),
        wrong_arm={"scale": [1.0] * 8, "factory": "genpolicy_sim.peers.lerobot:NoRobot"},
        effort=False,
    ),
    Rig(
        driver="dynamixel",
        needs="dynamixel_sdk",
        config="dynamixel.toml",
        damage=("drop 2", "crc 2", "partial 2", "noise 20"),
        wrong_arm={"ids": [1, 2, 3, 4, 5, 6, 7, 9]},
        error=("error 3 overload", "overload"),
        driver_keys={"watchdog_s": 1.0, "reply_s": SLOW_REPLY_S},
        recover=("reboot",),
        tick=TURN_TICK,
    ),
    Rig(
        driver="feetech",
        needs="serial",
        config="feetech.toml",
        damage=("drop 2", "crc 2", "partial 2", "noise 20"),
        wrong_arm={"ids": [1, 2, 3, 4, 5, 6, 7, 9]},
        error=("error 3 overload", "overload"),
        driver_keys={"reply_s": SLOW_REPLY_S},
        recover=("error 3 none",),
        tick=TURN_TICK,
    ),
    Rig(
        driver="ros2",
        needs="cyclonedds",
        config="ros2.toml",
        damage=("drop 2", "nan 2", "partial 2", "short 2"),
        wrong_arm={"states": "nobody_states"},
        arguments=("--domain", str(DOMAIN), "--namespace", f"conformance_{os.getpid()}"),
        driver_keys={"effort": True},
        recover=("well",),
        unplug="silent 600",
        plug=("well",),
        lossless=False,
    ),
    Rig(
        driver="ur",
        needs="rtde_control",
        config="ur5e.toml",
        damage=("drop 2", "nan 2", "duplicate 2", "partial 2"),
        wrong_arm={"arm": "UR10"},
        error=("protective", "protective"),
        arguments=("--host", UR_HOST),
        driver_keys={"watchdog_s": 0.5},
        recover=("normal", "remote", "mode running", "end"),
        lossless=False,
    ),
)


class Peer(PeerProcess):
    """The simulated arm of a rig."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        super().__init__(rig.driver, *rig.arguments)

    def document(self, mode: str = "joints", **driver: Any) -> dict[str, Any]:
        """The rig's TOML, with slower joints than it has, in mode ``joints`` by default."""
        document = tomllib.loads((CONFIGS / self.rig.config).read_text())
        document.pop("robot")
        document.pop("home", None)
        keys = document.setdefault("driver", {})
        keys.update({**self.rig.wire(self.ready), **self.rig.driver_keys, **driver})
        joints = document["joints"]
        joints.pop("effort", None)
        count = len(joints["names"])
        joints["velocity"] = [VELOCITY] * count
        joints["acceleration"] = [ACCELERATION] * count
        joints["jerk"] = [JERK] * count
        document["mode"] = mode
        document["observations"] = {"joints": "joints.position", "speed": "joints.velocity"}
        if mode == "joints":
            for key in ("hand_limits", "workspace", "hand", "model"):
                document.pop(key, None)
            joints["first_step"] = [1.0] * count
        else:
            document["observations"]["eef"] = "hand.position"
        return document


VELOCITY, ACCELERATION, JERK = 0.8, 6.0, 150.0  # of every joint, rad and s
