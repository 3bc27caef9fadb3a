"""What a person steers a robot with; ``make`` finds it by name."""

from __future__ import annotations

from pathlib import Path

from genpolicy.spec import GenpolicyError, TaskSpec
from genpolicy_deploy.leaders.arm import ArmLeader
from genpolicy_deploy.leaders.base import Leader
from genpolicy_deploy.leaders.gamepad import Gamepad
from genpolicy_deploy.leaders.keyboard import Keyboard


def make(name: str, task: TaskSpec) -> Leader:
    """Build a leader for the actions of ``task``, not yet connected.

    Args:
        name: ``keyboard``, ``gamepad`` (or ``gamepad:/dev/input/js1``), or ``arm:FILE.toml``.
        task: whose actions the person gives.

    Raises:
        GenpolicyError: no such leader, or one that cannot give such actions.
    """
    kind, _, where = name.partition(":")
    if kind == "keyboard" and not where:
        return Keyboard(task)
    if kind == "gamepad":
        return Gamepad(task, Path(where)) if where else Gamepad(task)
    if kind == "arm" and where:
        return ArmLeader(task, Path(where))
    raise GenpolicyError(f"--leader {name}: choose keyboard, gamepad, gamepad:FILE or arm:TOML")
