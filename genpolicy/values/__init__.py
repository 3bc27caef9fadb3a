"""Value functions that re-rank a policy's samples (V-GPS), and what trains them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genpolicy.spec import GenpolicyError, PolicySpec
from genpolicy.values.critic import ValueConfig, ValueFunction

VALUES = {"q_ensemble": (ValueFunction, ValueConfig)}


def build_value(config: Mapping[str, Any], spec: PolicySpec) -> ValueFunction:
    """Rebuild a value function from ``config_dict`` output, weights still random.

    Raises:
        GenpolicyError: An unknown name or key.
    """
    fields = dict(config)
    name = fields.pop("name", None)
    if name not in VALUES:
        raise GenpolicyError(f"value function '{name}' is unknown, choose from {sorted(VALUES)}")
    cls, config_cls = VALUES[name]
    try:
        return cls(config_cls(**fields), spec)
    except TypeError as error:
        raise GenpolicyError(f"value function '{name}': {error}") from error
