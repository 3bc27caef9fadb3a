"""Between the dataclass configs of the components and Hydra."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore

from genpolicy.commands.configs import COMMANDS
from genpolicy.finetune import ALGORITHMS
from genpolicy.policies import POLICIES
from genpolicy.pretrain.imitation import ImitationConfig
from genpolicy.spec import GenpolicyError
from genpolicy.values.cal_ql import CalQLConfig

T = TypeVar("T")

# group -> name -> dataclass; a new component is one entry here and one YAML.
COMPONENTS: dict[str, dict[str, type]] = {
    "policy": {name: config for name, (_, config) in POLICIES.items()},
    "algo": {
        "imitation": ImitationConfig,
        "cal_ql": CalQLConfig,
        **{name: config for name, (_, config) in ALGORITHMS.items()},
    },
}


def register() -> None:
    """Put every schema into Hydra's store, as ``schema`` or ``schema_<name>`` of its group."""
    store = ConfigStore.instance()
    for verb, config in COMMANDS.items():
        store.store(name=f"schema_{verb}", node=config)
    for group, members in COMPONENTS.items():
        for name, config in members.items():
            store.store(group=group, name=f"schema_{name}", node=_schema(config, name))


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance of a config dataclass from plain containers; its own checks run.

    Raises:
        GenpolicyError: a key that the dataclass does not have.
    """
    hints = get_type_hints(cls)
    entries = {key: value for key, value in values.items() if key != "name" or "name" in hints}
    if unknown := sorted(set(entries) - hints.keys()):
        raise GenpolicyError(f"{unknown[0]} is not a key: known are {', '.join(sorted(hints))}")
    return cls(**{key: _typed(hints[key], value) for key, value in entries.items()})


def build_component(group: str, values: Mapping[str, Any], wanted: type[T]) -> T:
    """The config of the component that ``values['name']`` selects.

    Raises:
        GenpolicyError: it is not of the kind that the command works with.
    """
    name = values["name"]
    fitting = {n: config for n, config in COMPONENTS[group].items() if issubclass(config, wanted)}
    if name not in fitting:
        raise GenpolicyError(
            f"{group}={name} does not fit this command: choose one of {sorted(fitting)}"
        )
    return build(fitting[name], values)


def _schema(cls: type, name: str | None = None) -> type:
    """A mutable twin for Hydra (which cannot override frozen dataclasses), led by ``name``."""
    hints = get_type_hints(cls)
    entries: list[Any] = [("name", str, dataclasses.field(default=name))] if name else []
    for item in dataclasses.fields(cls):
        kind = hints[item.name]
        if dataclasses.is_dataclass(kind):
            kind = _schema(kind)  # type: ignore[arg-type]
            entries.append((item.name, kind, dataclasses.field(default_factory=kind)))
        elif item.default_factory is not dataclasses.MISSING:
            entries.append(
                (item.name, kind, dataclasses.field(default_factory=item.default_factory))
            )
        else:
            entries.append((item.name, kind, dataclasses.field(default=item.default)))
    return dataclasses.make_dataclass(cls.__name__, entries)


def _typed(hint: Any, value: Any) -> Any:
    """YAML containers to what the annotation asks for: tuples and nested dataclasses."""
    if get_origin(hint) in (Union, types.UnionType):
        hints = [h for h in get_args(hint) if h is not type(None)]
        return value if value is None or len(hints) != 1 else _typed(hints[0], value)
    if isinstance(value, Mapping) and dataclasses.is_dataclass(hint):
        return build(hint, value)  # type: ignore[arg-type]
    return tuple(value) if get_origin(hint) is tuple and value is not None else value
