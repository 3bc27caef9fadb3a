"""What a leader arm and the process behind it share: its TOML file and its messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots.arm_config import ArmConfig
from genpolicy_deploy.robots.arm_toml import parse
from genpolicy_deploy.robots.config import read_toml


def reading_dtype(joints: int) -> np.dtype:
    """When the joints were where, on the monotonic clock; rad (m where a joint slides)."""
    return np.dtype([("t_ns", "<i8"), ("position", "<f8", (joints,))])


def load_leader(path: Path) -> ArmConfig:
    """The TOML file of an arm that a person moves by hand.

    Raises:
        GenpolicyError: not an arm's file, or of one that would hold against the hand.
    """
    document = read_toml(path)
    config = parse(str(document.pop("robot", "")), document, path)
    if config.stop != "release":
        raise GenpolicyError(
            f'{path}: a leader arm is moved by hand and must be limp: stop = "release"'
        )
    return config
