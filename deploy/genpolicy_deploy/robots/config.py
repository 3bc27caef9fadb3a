"""A robot's TOML file: which robot, its options and its limits."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.robots.base import Limits


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML document.

    Raises:
        GenpolicyError: missing, or not TOML.
    """
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise GenpolicyError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GenpolicyError(f"{path}: not valid TOML ({error})") from error


def load_config(path: Path, robot: str) -> dict[str, Any]:
    """Options of ``robot`` from a file with ``robot = "name"``, ``[limits]`` and its own keys.

    Raises:
        GenpolicyError: missing, not TOML, or for another robot.
    """
    options = read_toml(path)
    if (named := options.pop("robot", None)) != robot:
        raise GenpolicyError(f"{path}: describes robot {named!r}, not '{robot}'")
    return options


def override_limits(limits: Limits, changes: Mapping[str, Any] | None, source: str) -> Limits:
    """``limits`` with the entries of a ``[limits]`` table in place of its own.

    Raises:
        GenpolicyError: unknown entry, wrong length or impossible values.
    """
    known = set(vars(limits))
    if unknown := sorted(set(changes or {}) - known):
        raise GenpolicyError(
            f"{source}: limits.{unknown[0]} does not exist: choose {', '.join(sorted(known))}"
        )
    try:
        given = {name: tuple(float(v) for v in values) for name, values in (changes or {}).items()}
    except (TypeError, ValueError) as error:
        raise GenpolicyError(f"{source}: limits must be lists of numbers ({error})") from error
    changed = replace(limits, **given)
    changed.check(len(limits.low), source)
    return changed
