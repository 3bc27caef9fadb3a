"""Runs a configured command once, or once per combination of a Hydra sweep."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genpolicy.commands.common import Invocation
from genpolicy.commands.compose import (
    VERSION_BASE,
    compose,
    explain,
    for_hydra,
    merge_overrides,
    resolve,
)
from genpolicy.commands.configs import COMMANDS
from genpolicy.commands.schemas import build
from genpolicy.data_files import data_path
from genpolicy.runs import checkpoint, distributed
from genpolicy.spec import GenpolicyError

# Our commands name and write their own folders; Hydra only composes and launches.
SWEEP = [
    "hydra.sweep.dir=runs/sweeps/${now:%Y-%m-%d-%H%M%S}",
    "hydra.sweep.subdir=.",
    "hydra.output_subdir=null",
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
]


def launch(verb: str, arguments: Sequence[str]) -> int:
    """``genpolicy <verb> <arguments>``.

    Raises:
        GenpolicyError: bad input of any kind.
    """
    flags = [a for a in arguments if a.startswith("-")]
    overrides = [a for a in arguments if not a.startswith("-")]
    if flags in (["-m"], ["--multirun"]):
        return _sweep(verb, overrides)
    if flags == ["--cfg"] and "job" in overrides:
        overrides.remove("job")
        print(OmegaConf.to_yaml(compose(verb, overrides)), end="")
        return 0
    if flags:
        raise GenpolicyError(f"{flags[0]} is not an option: see genpolicy {verb} --help")
    overrides = _resumed(overrides)
    try:
        execute(verb, compose(verb, overrides), overrides)
    finally:
        distributed.stop()
    return 0


def execute(verb: str, config: DictConfig, overrides: Sequence[str] = ()) -> Any:
    """Run a composed command; returns what its ``run`` returns (a run folder, mostly)."""
    resolved = resolve(config)
    command = build(COMMANDS[verb], resolved)
    module = import_module(f"genpolicy.commands.{verb}")
    return module.run(command, Invocation(resolved, list(overrides)))


def _resumed(overrides: list[str]) -> list[str]:
    """With ``resume=RUN``: what RUN was started with, and the new overrides on top."""
    given = dict(o.split("=", 1) for o in overrides if "=" in o)
    if given.get("resume", "null") in ("null", ""):
        return overrides
    try:
        run = str(OverridesParser.create().parse_override(f"resume={given['resume']}").value())
    except HydraException:
        return overrides  # composing them will say what is wrong
    if "run_dir" in given:
        raise GenpolicyError("run_dir cannot be given with resume: the run goes on where it is")
    path = checkpoint.resolve(run, prefer="last").parents[1] / "overrides.yaml"
    try:
        earlier = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GenpolicyError(f"resume={run}: {path} cannot be read, so it cannot go on") from error
    return merge_overrides([o for o in earlier if not o.startswith("run_dir=")], overrides)


def _sweep(verb: str, overrides: list[str]) -> int:
    """One run per combination, through Hydra's own sweeper and launcher (``hydra/launcher=``)."""
    if any(o.startswith(("resume=", "run_dir=")) for o in overrides):
        raise GenpolicyError("a sweep starts new runs in new folders: leave out resume and run_dir")
    resolve(compose(verb, _first_of_each(overrides)))  # mistakes end it before anything is written
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [f"genpolicy_{verb}", "--multirun", *SWEEP, *for_hydra(overrides)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions instead of Hydra's own exit
    folder = str(data_path("configs"))
    try:
        hydra.main(config_path=folder, config_name=verb, version_base=VERSION_BASE)(_job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise GenpolicyError(explain(verb, error, overrides)) from error
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
    return 0


def _first_of_each(overrides: list[str]) -> list[str]:
    """The first combination of a sweep."""
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise GenpolicyError(f"sweep: {str(error).splitlines()[0]}") from error
    return [
        f"{o.get_key_element()}={next(o.sweep_string_iterator())}"
        if o.is_sweep_override()
        else str(o.input_line)
        for o in parsed
    ]


def _job(config: DictConfig) -> None:
    """One run of a sweep."""
    hydra_config = HydraConfig.get()
    verb = hydra_config.job.config_name
    assert verb is not None
    execute(verb, config, list(hydra_config.overrides.task))
