"""What something is: a checkpoint, run folder, HDF5 or ONNX file, or the keys of a component.

Examples:
    genpolicy info runs/lift/dppo/RUN
    genpolicy info demos.hdf5
    genpolicy info controller.onnx
    genpolicy info algo=dppo
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from genpolicy.spec import GenpolicyError, PolicySpec, TaskSpec


def run(arguments: Sequence[str]) -> int:
    """Print what the one argument is."""
    if len(arguments) != 1:
        raise GenpolicyError("info takes one argument: a file, a folder, or GROUP=NAME")
    print(describe(arguments[0]))
    return 0


def describe(what: str) -> str:
    """The text about ``what``.

    Raises:
        GenpolicyError: it does not exist, is damaged, or is nothing that genpolicy knows.
    """
    group, _, name = what.partition("=")
    if name and not Path(what).exists():
        return component(group, name)
    path = Path(what)
    if not path.exists():
        raise GenpolicyError(f"{path}: no such file or folder")
    if path.suffix == ".onnx":
        return _controller(path)
    if path.suffix in (".hdf5", ".h5"):
        return _demonstrations(path)
    return _checkpoint(path)


def component(group: str, name: str) -> str:
    """The keys of a component, by its own name or that of its YAML file."""
    from genpolicy.commands.docs import table
    from genpolicy.commands.schemas import COMPONENTS
    from genpolicy.data_files import data_path

    if group not in COMPONENTS:
        raise GenpolicyError(f"{group}={name}: choose a group among {', '.join(COMPONENTS)}")
    members = COMPONENTS[group]
    preset = data_path("configs") / group / f"{name}.yaml"
    values: dict[str, Any] = {}
    if preset.is_file():
        values = yaml.safe_load(preset.read_text(encoding="utf-8"))
        defaults = values.pop("defaults")
        name = next(d.removeprefix("schema_") for d in defaults if d.startswith("schema_"))
    if name not in members:
        raise GenpolicyError(f"{group}={name} does not exist: choose one of {', '.join(members)}")
    config = members[name]
    summary = (config.__doc__ or "").strip().splitlines()[0]
    return f"{group}={name}: {summary}\n{table(config, f'{group}.', values)}"


def _task(task: TaskSpec) -> list[str]:
    observations = ", ".join(f"{f.name}[{f.dim}]" for f in task.observations)
    return [
        f"task          {task.task} ({task.robot}), {task.max_episode_steps} steps at most",
        f"observations  {observations}",
        f"actions       {', '.join(task.action.names)}",
        f"control       {task.control_mode} at {task.control_hz:g} Hz",
    ]


def _horizons(spec: PolicySpec) -> str:
    return f"horizons      sees {spec.obs_steps}, plans {spec.chunk}, executes {spec.exec_steps}"


def _stage(evaluation: dict[str, Any] | None) -> str:
    from genpolicy_deploy.tables import stage_text

    if not evaluation:
        return "evaluation    none: run genpolicy eval"
    return f"evaluation    {stage_text(evaluation)}"


def _checkpoint(path: Path) -> str:
    from genpolicy.runs import checkpoint

    stored = checkpoint.load(path)
    config = stored.config
    lines = [
        f"{stored.path}: whole (every byte checked)",
        *_task(stored.spec.task),
        _horizons(stored.spec),
        f"trained by    {config.get('algo', {}).get('name')}, {stored.step} iterations",
        _stage(stored.evaluation),
        f"sha256        {checkpoint.fingerprint(stored.path)}",
        f"policy        {json.dumps(config['policy'])}",
    ]
    return "\n".join(lines)


def _demonstrations(path: Path) -> str:
    from genpolicy.data.hdf5 import read_demonstrations

    demos = read_demonstrations(path)
    last = demos.starts + demos.lengths - 1
    lengths = demos.lengths
    lines = [
        f"{path}: HDF5, {demos.num_episodes} episodes, {len(demos)} steps",
        *_task(demos.task),
        f"lengths       {lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f}",
        f"ended         {demos.dones[last].mean():.0%} by the task, the others by time",
        f"reward        {demos.rewards.sum() / demos.num_episodes:.3f} per episode",
        "ranges:",
    ]
    columns = {**demos.obs, "actions": demos.actions}
    with np.printoptions(precision=3, suppress=True, linewidth=200):
        lines += [f"  {k:<22}{v.min(0)} to {v.max(0)}" for k, v in columns.items()]
    return "\n".join(lines)


def _controller(path: Path) -> str:
    from genpolicy_deploy.graph import Graph
    from genpolicy_deploy.tables import contract_table

    return contract_table(str(path), Graph(path).contract)
