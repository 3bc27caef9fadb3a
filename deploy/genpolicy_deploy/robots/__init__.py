"""Robots behind one protocol; ``make`` finds them by name."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots.arm import ArmRobot
from genpolicy_deploy.robots.base import Robot
from genpolicy_deploy.robots.config import load_config
from genpolicy_deploy.robots.drivers import DRIVERS
from genpolicy_deploy.robots.mujoco import MujocoRobot

_BUILT_IN = {"mujoco": MujocoRobot}
GROUP = "genpolicy.robots"


def names() -> list[str]:
    """Every robot that ``make`` knows."""
    return sorted({*_BUILT_IN, *DRIVERS, *(entry.name for entry in entry_points(group=GROUP))})


def make(name: str, config: Path | None = None, **options: Any) -> Robot:
    """Build a robot, not yet connected.

    Args:
        name: one of ``names()``; other packages add theirs by the entry-point group
            ``genpolicy.robots`` (a factory that takes the options of its TOML file).
        config: TOML file with the robot's wiring and limits.
        **options: override the file's.

    Raises:
        GenpolicyError: no such robot, or a file that it does not understand.
    """
    if name in DRIVERS:
        return ArmRobot(name, (load_config(config, name) if config else {}) | options, config)
    factory = _BUILT_IN.get(name)
    if factory is None:
        found = [entry for entry in entry_points(group=GROUP) if entry.name == name]
        if not found:
            raise GenpolicyError(f"robot '{name}' does not exist: choose {', '.join(names())}")
        factory = found[0].load()
    options = (load_config(config, name) if config else {}) | options
    try:
        return factory(**options)
    except TypeError as error:
        raise GenpolicyError(f"{config or name}: {error}") from error
