"""Every YAML opens with a command, and that command composes."""

import re
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from genpolicy.commands.compose import compose, merge_overrides, resolve
from genpolicy.commands.configs import COMMANDS
from genpolicy.commands.docs import field_docs
from genpolicy.commands.schemas import COMPONENTS, build, build_component
from genpolicy.data_files import data_path
from genpolicy.finetune.dppo import DPPOConfig
from genpolicy.pretrain.imitation import ImitationConfig
from genpolicy.spec import GenpolicyError

CONFIGS = data_path("configs")
FILES = sorted(p.relative_to(CONFIGS) for p in CONFIGS.rglob("*.yaml"))


def first_command(path):
    lines = (CONFIGS / path).read_text().splitlines()
    lines = lines[1:] if lines[0].startswith("# @package") else lines
    found = re.fullmatch(r"# genpolicy (\w+) (.+)", lines[0])
    assert found, f"{path} must open with the command that uses it"
    return found[1], found[2].split()


@pytest.mark.parametrize("path", FILES, ids=str)
def test_the_command_in_the_header_composes(path):
    verb, overrides = first_command(path)
    config = resolve(compose(verb, overrides))
    build(COMMANDS[verb], config)
    if path.parent == Path("."):
        assert verb == path.stem
    elif path.parent.name != "logger":
        assert f"{path.parent}={path.stem}" in overrides
    for group in ("policy", "algo"):
        if group in config:
            build_component(group, config[group], COMPONENTS[group][config[group]["name"]])


def test_every_command_has_its_entry():
    assert {p.stem for p in FILES if p.parent == Path(".")} >= set(COMMANDS)


@pytest.mark.parametrize(
    "config",
    [*COMMANDS.values(), *(c for members in COMPONENTS.values() for c in members.values())],
    ids=lambda c: c.__name__,
)
def test_every_key_is_documented(config):
    docs = field_docs(config)
    assert [f.name for f in fields(config) if not docs.get(f.name)] == []


def test_a_null_task_needs_no_simulator():
    assert compose("pretrain", ["task=null"]).task is None


def test_yaml_adds_nothing_to_the_dataclass_defaults_of_dppo():
    """Defaults live beside the code; a preset that repeats them would drift."""
    config = resolve(compose("finetune", []))["algo"]
    assert build_component("algo", config, DPPOConfig) == DPPOConfig()


def test_components_are_checked_against_the_command():
    config = resolve(compose("finetune", []))["algo"]
    with pytest.raises(GenpolicyError, match=r"algo=dppo does not fit .*\['imitation'\]"):
        build_component("algo", config, ImitationConfig)


def test_later_overrides_win():
    merged = merge_overrides(["a=1", "b.c=2", "task=lift"], ["b.c=3", "d=4"])
    assert merged == ["a=1", "b.c=3", "task=lift", "d=4"]


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Outer:
    inner: Inner
    maybe: Inner | None = None
    span: tuple[float, float] | None = None
    items: list[int] | None = None


def test_build_restores_tuples_and_nested_dataclasses():
    plain = {"name": "outer", "inner": {"sizes": [2, 3]}, "span": [0.0, 1.0], "items": [1]}
    assert build(Outer, plain) == Outer(Inner((2, 3)), None, (0.0, 1.0), [1])
    with pytest.raises(GenpolicyError, match="size is not a key: known are sizes"):
        build(Outer, {"inner": {"size": 1}})


def test_configs_are_typed():
    config = compose("finetune", ["algo.critic_hidden=[8,8]"])
    assert OmegaConf.get_type(config, "algo").__name__ == "DPPOConfig"
    with pytest.raises(GenpolicyError, match=r"algo\.critic_hidden\[0\]"):
        compose("finetune", ["algo.critic_hidden=[wide]"])
