"""Reads an arm's TOML file into an ``ArmConfig``, or says in one sentence what is wrong with it.

``configs/robot/lerobot.toml`` is one with every key explained. Lengths are m, angles rad, times s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from genpolicy.data_files import data_path
from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots.arm_config import HAND_AXES, ArmConfig, Gripper, Workspace
from genpolicy_deploy.robots.base import Limits
from genpolicy_deploy.robots.config import override_limits
from genpolicy_deploy.robots.mujoco import LIMITS

MIN_RATE_HZ = 20.0  # below, an arm moves in steps that one can see
MOST_RAD, MOST_RAD_S = 12.6, 30.0  # two turns; beyond what arms do
SOURCES = {"hand.position": 3, "hand.quaternion": 4, "gripper.position": 2}  # and per joint:
JOINT_SOURCES = ("joints.position", "joints.velocity")
_KEYS = [
    *("rate_hz", "mode", "stop", "model", "hand", "home", "silence_s", "driver", "joints"),
    *("hand_limits", "gripper", "workspace", "observations"),
]


def parse(driver: str, options: Mapping[str, Any], source: Path | None = None) -> ArmConfig:
    """Check a TOML document and give it types.

    Args:
        driver: name of the robot.
        options: the document, without ``robot``.
        source: its file, beside which the model is looked for.

    Raises:
        GenpolicyError: names file, key and what is allowed.
    """
    return _Parser(driver, options, source).parse()


class _Parser:
    """One document. ``where`` begins every message."""

    def __init__(self, driver: str, options: Mapping[str, Any], source: Path | None) -> None:
        self.driver, self.options, self.source = driver, options, source
        self.where = str(source or f"robot '{driver}'")

    def parse(self) -> ArmConfig:
        self._known(self.options, _KEYS, "")
        table = self._table("joints", required=True)
        names = self._names(table)
        limits = self._joint_limits(table, len(names))
        config = ArmConfig(
            driver=self.driver,
            options=self._table("driver"),
            joints=names,
            limits=limits,
            rate_hz=self._number(self.options, "rate_hz"),
            mode=self._choice("mode", ("hand", "joints"), "hand"),
            stop=self._choice("stop", ("hold", "release"), "hold"),
            model=self._model(),
            hand=self._text(self.options, "hand") if "hand" in self.options else None,
            home=self._home(names, limits),
            hand_limits=None,
            gripper=self._gripper(names),
            workspace=self._workspace(),
            observations=self._observations(),
            silence_s=self._number(self.options, "silence_s", 0.1),
        )
        self._check(config)
        return replace(config, hand_limits=self._hand_limits(config))

    def _check(self, config: ArmConfig) -> None:
        """What one key alone does not show."""
        if config.rate_hz < MIN_RATE_HZ:
            raise self._error("rate_hz", f"must be at least {MIN_RATE_HZ:g}")
        if not 2.0 / config.rate_hz <= config.silence_s <= 1.0:
            raise self._error("silence_s", "must lie between two periods of rate_hz and 1 s")
        if config.model is None and (config.mode == "hand" or config.workspace):
            key = "workspace" if config.workspace else 'mode = "hand"'
            raise self._error(key, "needs model = the arm's MJCF file")
        if config.hand is None and config.model and (config.mode == "hand" or config.workspace):
            raise self._error("hand", "is missing: name the site of the model that is the hand")
        if config.hand is not None and config.model is None:
            raise self._error("hand", "needs model = the arm's MJCF file")
        if config.mode == "joints" and "hand_limits" in self.options:
            raise self._error("hand_limits", 'are for mode = "hand"')
        for name, origin in config.observations.items():
            self._check_source(name, origin, config)

    def _check_source(self, name: str, origin: str, config: ArmConfig) -> None:
        key = f"observations.{name}"
        if origin.startswith("hand.") and config.hand is None:
            raise self._error(key, "needs model and hand")
        if origin.startswith("gripper.") and config.gripper is None:
            raise self._error(key, "needs the table [gripper]")
        if origin not in (*SOURCES, *JOINT_SOURCES) and udp_source(origin) is None:
            known = ", ".join((*SOURCES, *JOINT_SOURCES))
            raise self._error(key, f"= '{origin}' is none of {known}, udp:PORT:SIZE")

    def _names(self, table: Mapping[str, Any]) -> tuple[str, ...]:
        names = table.get("names")
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            raise self._error("joints.names", "must be a list of the joints' names")
        if len(set(names)) != len(names):
            raise self._error("joints.names", "names a joint twice")
        return tuple(names)

    def _joint_limits(self, table: Mapping[str, Any], count: int) -> Limits:
        entries = list(Limits.__dataclass_fields__)
        self._known(table, ["names", *entries], "joints.")
        missing = [e for e in entries if e not in table and e != "effort"]
        if missing:
            raise self._error(f"joints.{missing[0]}", f"is missing: give {count} numbers")
        given = {e: self._vector(table, e, count, "joints.") for e in entries if e in table}
        limits = Limits(**given)
        limits.check(count, f"{self.where}: joints")
        for entry, most in (("low", MOST_RAD), ("high", MOST_RAD), ("velocity", MOST_RAD_S)):
            if max(map(abs, given[entry])) > most:
                raise self._error(f"joints.{entry}", "is in rad, not degrees (m where one slides)")
        return limits

    def _hand_limits(self, config: ArmConfig) -> Limits | None:
        if config.hand is None:
            return None
        size = len(HAND_AXES) + (config.gripper is not None)
        default = Limits(**{name: values[:size] for name, values in vars(LIMITS).items()})
        table = self._table("hand_limits")
        return override_limits(default, table, f"{self.where}: hand_limits")

    def _home(self, names: tuple[str, ...], limits: Limits) -> tuple[float, ...] | None:
        if "home" not in self.options:
            return None
        home = self._vector(self.options, "home", len(names))
        for name, value, low, high in zip(names, home, limits.low, limits.high, strict=True):
            if not low <= value <= high:
                raise self._error(
                    "home", f"puts joint '{name}' at {value:g}, allowed are {low:g} to {high:g}"
                )
        return home

    def _gripper(self, names: tuple[str, ...]) -> Gripper | None:
        if "gripper" not in self.options:
            return None
        table = self._table("gripper")
        self._known(table, ["joint", "open", "closed"], "gripper.")
        ends = self._number(table, "open", prefix="gripper.", positive=False)
        closed = self._number(table, "closed", prefix="gripper.", positive=False)
        gripper = Gripper(self._text(table, "joint", "gripper."), ends, closed)
        if gripper.joint not in names:
            raise self._error("gripper.joint", f"'{gripper.joint}' is not among joints.names")
        if gripper.open == gripper.closed:
            raise self._error("gripper.open", "and gripper.closed must differ")
        return gripper

    def _workspace(self) -> Workspace | None:
        if "workspace" not in self.options:
            return None
        table = self._table("workspace")
        self._known(table, ["low", "high", "clearance"], "workspace.")
        x, y, z = self._vector(table, "low", 3, "workspace.")
        a, b, c = self._vector(table, "high", 3, "workspace.")
        if not (x < a and y < b and z < c):
            raise self._error("workspace.low", "must be below workspace.high")
        clearance = self._number(table, "clearance", 0.02, "workspace.", positive=False)
        if clearance < 0.0:
            raise self._error("workspace.clearance", "must not be negative")
        return Workspace((x, y, z), (a, b, c), clearance)

    def _model(self) -> Path | None:
        if "model" not in self.options:
            return None
        name = self._text(self.options, "model")
        beside = (self.source.parent if self.source else Path()) / name
        for path in (beside, data_path("assets") / name):
            if path.is_file():
                return path.resolve()
        raise self._error("model", f"= '{name}' is neither a file beside it nor one of ours")

    def _observations(self) -> dict[str, str]:
        table = self._table("observations")
        for name, origin in table.items():
            if not isinstance(origin, str):
                raise self._error(f"observations.{name}", "must be text: a source")
        ports = [found[0] for found in map(udp_source, table.values()) if found]
        if len(set(ports)) != len(ports):
            raise self._error("observations", "take two sensors from one UDP port")
        return table

    def _known(self, table: Mapping[str, Any], known: Sequence[str], prefix: str) -> None:
        if unknown := sorted(set(table) - set(known)):
            choices = ", ".join(known)
            raise self._error(f"{prefix}{unknown[0]}", f"does not exist: choose {choices}")

    def _table(self, key: str, required: bool = False) -> dict[str, Any]:
        table = self.options.get(key, None if required else {})
        if not isinstance(table, Mapping):
            raise self._error(f"[{key}]", "is missing" if table is None else "must be a table")
        return dict(table)

    def _text(self, table: Mapping[str, Any], key: str, prefix: str = "") -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value:
            raise self._error(prefix + key, "must be text")
        return value

    def _choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self.options.get(key, default)
        if value not in choices:
            raise self._error(key, f"= {value!r} must be {' or '.join(choices)}")
        return value

    def _number(
        self,
        table: Mapping[str, Any],
        key: str,
        default: float | None = None,
        prefix: str = "",
        positive: bool = True,
    ) -> float:
        value = table.get(key, default)
        if not _is_number(value) or (positive and value <= 0.0):
            raise self._error(prefix + key, f"must be a {'positive ' if positive else ''}number")
        return float(value)

    def _vector(
        self, table: Mapping[str, Any], key: str, count: int, prefix: str = ""
    ) -> tuple[float, ...]:
        values = table.get(key)
        if not isinstance(values, list) or len(values) != count or not all(map(_is_number, values)):
            raise self._error(prefix + key, f"must be a list of {count} numbers")
        return tuple(float(value) for value in values)

    def _error(self, key: str, text: str) -> GenpolicyError:
        return GenpolicyError(f"{self.where}: {key} {text}")


def udp_source(text: str) -> tuple[int, int] | None:
    """(port, numbers) of ``udp:PORT:SIZE``, or None if ``text`` is nothing of the kind."""
    parts = text.split(":")
    if len(parts) != 3 or parts[0] != "udp" or not (parts[1].isdigit() and parts[2].isdigit()):
        return None
    port, size = int(parts[1]), int(parts[2])
    return (port, size) if 0 < port < 65536 and 0 < size <= 8000 else None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)
