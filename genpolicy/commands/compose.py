"""Hydra composition: overrides in, a checked configuration out, mistakes in one sentence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import genpolicy_sim
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from genpolicy.commands.schemas import register
from genpolicy.data_files import data_path
from genpolicy.spec import GenpolicyError

VERSION_BASE = "1.3"
OPEN_ENDED = ("expert.",)  # mappings in which every key is allowed


def compose(verb: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration of ``genpolicy <verb> <overrides>``.

    Raises:
        GenpolicyError: an unknown key or option, a value of another type, broken syntax.
    """
    try:
        return _compose(verb, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise GenpolicyError(explain(verb, error, overrides)) from error


def resolve(config: DictConfig) -> dict[str, Any]:
    """Plain containers, every interpolation resolved.

    Raises:
        GenpolicyError: a key that must be given was not.
    """
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise GenpolicyError(f"{missing[0]} must be given: add {missing[0]}=...")
    try:
        resolved = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise GenpolicyError(f"configuration: {_first_line(error)}") from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def for_hydra(overrides: Iterable[str]) -> list[str]:
    """What Hydra takes: ``group=none`` for null, and ``++`` where a mapping has no fixed keys."""
    return [_for_hydra(override) for override in overrides]


def _for_hydra(override: str) -> str:
    if override.startswith(OPEN_ENDED):
        return f"++{override}"
    group = override.removesuffix("=null")
    is_null = group != override and (data_path("configs") / group).is_dir()
    return f"{group}=none" if is_null else override


def merge_overrides(earlier: Iterable[str], later: Iterable[str]) -> list[str]:
    """``later`` on top of ``earlier``: one override per key."""
    merged = {override.split("=", 1)[0]: override for override in earlier}
    merged |= {override.split("=", 1)[0]: override for override in later}
    return list(merged.values())


def _compose(verb: str, overrides: Sequence[str]) -> DictConfig:
    register()
    _register_tasks()
    folder = str(data_path("configs"))
    overrides = for_hydra(overrides)
    with initialize_config_dir(folder, job_name=f"genpolicy_{verb}", version_base=VERSION_BASE):
        return hydra_compose(config_name=verb, overrides=overrides)


def _register_tasks() -> None:
    """Give other packages' tasks an entry in the group: their name, and options by ``+``."""
    for name in genpolicy_sim.tasks():
        if not (data_path("configs") / "task" / f"{name}.yaml").exists():
            node = {"name": name, "options": {}}
            ConfigStore.instance().store(group="task", name=name, node=node)


def explain(verb: str, error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's messages as one sentence that names the key and what would be right."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = [o for o in error.options or [] if not o.startswith("schema")]
        return f"{group}={name} does not exist: choose one of {', '.join(sorted(options))}"
    unknown = re.search(r"Could not (?:override|append to config\.?|delete) '?([\w./@]+)'?", text)
    cause = error.__cause__
    value = re.search(r"full_key: (\S+)", str(cause)) if cause else None
    if cause is not None and "is not a ListConfig" in str(cause) and value:
        return f"{value[1]} takes a list: write {value[1]}=[A,B]"
    if isinstance(cause, ValidationError) and value:
        return f"{value[1]}: {_first_line(cause)}"
    key = unknown[1] if unknown else _unknown_key(text, cause)
    if key:
        known = list(_keys(_known(verb, overrides)))
        close = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(close)}?" if close else f"see genpolicy {verb} --help"
        return f"{key} is not a key of genpolicy {verb}: {hint}"
    return f"genpolicy {verb}: {_first_line(error)}"


def _unknown_key(text: str, cause: BaseException | None) -> str | None:
    found = re.search(r"[Kk]ey '([\w./@]+)' (?:is )?not in", f"{text} {cause}")
    return found[1] if found else None


def _known(verb: str, overrides: Sequence[str]) -> DictConfig:
    """What the command's configuration holds, with the options of its groups where they exist."""
    groups = [o for o in overrides if (data_path("configs") / o.split("=", 1)[0]).is_dir()]
    try:
        return _compose(verb, groups)
    except (HydraException, OmegaConfBaseException):
        return _compose(verb, [])


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    for key in config:
        yield prefix + str(key)
        if not OmegaConf.is_missing(config, key) and OmegaConf.is_dict(config[key]):
            yield from _keys(config[key], f"{prefix}{key}.")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
