"""robomimic HDF5 files (https://robomimic.github.io, formats v0.1 to v1.5): the reader.

    data                  attrs: total, env_args (JSON), and ours: genpolicy_task (JSON)
    data/demo_<i>         attrs: num_samples, model_file (robosuite's XML)
      states [T, S]       flattened simulator states [time, qpos, qvel]
      actions [T, A]   rewards [T]   dones [T]   obs/<key> [T, ...]   next_obs/<key> [T, ...]
      interventions [T]   ours, of a robot's logs: whether a person gave the action
    mask/<name>           demo names as bytes, e.g. train and valid

``robomimic_writer.py`` writes them, ``hdf5.py`` opens and checks them. Files of other people carry
no ``genpolicy_task``: ``foreign_task.py`` derives it from their ``env_args``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from genpolicy.data.demonstrations import Episode
from genpolicy.data.foreign_task import derive_task, number, parse_json, select
from genpolicy.data.robomimic_writer import TASK_ATTRIBUTE
from genpolicy.spec import GenpolicyError, TaskSpec


def read_episodes(
    file: Any,
    path: Path,
    obs_keys: Sequence[str] | None,
    max_episodes: int | None,
    mask: str | None,
) -> tuple[dict[str, Episode], TaskSpec]:
    """Episodes of one opened file by name, not yet checked, and its task.

    Raises:
        GenpolicyError: A group, dataset or attribute is missing or malformed.
    """
    names = _demo_names(file, path, mask)[:max_episodes]
    task = _task(file, path, names, obs_keys)
    keys = [feature.name for feature in task.observations]
    return {n: _read_demo(file["data"][n], keys, f"{path}: {n}") for n in names}, task


def _demo_names(file: Any, path: Path, mask: str | None) -> list[str]:
    """Names of the demonstrations to read, in the order of their numbers."""
    present = [name for name in file["data"] if number(name, "demo_") is not None]
    names = present
    if mask is not None:
        masks = sorted(file["mask"]) if "mask" in file else []
        if mask not in masks:
            raise GenpolicyError(f"{path}: no mask `{mask}`: choose one of {masks}, or none")
        names = [name.decode() for name in file["mask"][mask][:]]
        if missing := sorted(set(names) - set(present)):
            raise GenpolicyError(f"{path}: mask `{mask}` names {missing[:3]}, which do not exist")
    if not names:
        which = f"mask `{mask}` selects no demonstration" if mask else "no demonstration in `data`"
        raise GenpolicyError(f"{path}: {which}: collect some, or choose other data")
    return sorted(names, key=lambda name: number(name, "demo_") or 0)


def _read_demo(demo: Any, keys: Sequence[str], where: str) -> Episode:
    for name in ("actions", "rewards", "dones"):
        if name not in demo:
            raise GenpolicyError(
                f"{where}: no dataset `{name}` (there is {sorted(demo)}): this is not a complete "
                "robomimic demonstration"
            )
    actions = demo["actions"][:]
    samples = demo.attrs.get("num_samples", len(actions))
    if samples != len(actions):
        raise GenpolicyError(
            f"{where}: num_samples={samples} but actions has {len(actions)} steps: the file was "
            "cut or edited; collect or download it again"
        )
    return Episode(
        obs=_read_observations(demo, "obs", keys, where),
        next_obs=_read_observations(demo, "next_obs", keys, where) if "next_obs" in demo else None,
        actions=actions,
        rewards=demo["rewards"][:],
        dones=demo["dones"][:],
    )


def _read_observations(
    demo: Any, group: str, keys: Sequence[str], where: str
) -> dict[str, np.ndarray]:
    if group not in demo:
        raise GenpolicyError(
            f"{where}: no group `{group}`: extract observations with robomimic's "
            "dataset_states_to_obs.py first"
        )
    available = demo[group]
    if missing := [key for key in keys if key not in available]:
        raise GenpolicyError(
            f"{where}: no {group}/{missing[0]}: choose observation keys among {sorted(available)}"
        )
    columns = {key: available[key][:] for key in keys}
    return {k: v[:, None] if v.ndim == 1 else v for k, v in columns.items()}


def _task(file: Any, path: Path, names: Sequence[str], obs_keys: Sequence[str] | None) -> TaskSpec:
    """The task that the file states, or one derived from ``env_args`` and array shapes."""
    data, first = file["data"], file["data"][names[0]]
    shapes = {}
    for key, column in first.get("obs", {}).items():
        if isinstance(column, h5py.Dataset):
            shapes[key] = column.shape[1:] or (1,)
    if TASK_ATTRIBUTE in data.attrs:
        stated = parse_json(data.attrs[TASK_ATTRIBUTE], path, TASK_ATTRIBUTE)
        try:
            task = TaskSpec.from_dict(stated)
        except GenpolicyError as error:
            raise GenpolicyError(f"{path}: attribute {TASK_ATTRIBUTE}: {error}") from error
    else:
        action_shape = first["actions"].shape if "actions" in first else ()
        if len(action_shape) != 2:
            raise GenpolicyError(f"{path}: {names[0]}: needs a dataset `actions` of [steps, dims]")
        if "env_args" not in data.attrs:
            raise GenpolicyError(
                f"{path}: `data` has neither attribute env_args nor {TASK_ATTRIBUTE}: write one, "
                "the learner must know what the numbers mean"
            )
        env_args = parse_json(data.attrs["env_args"], path, "env_args")
        longest = max(data[name].attrs.get("num_samples", 1) for name in names)
        task = derive_task(env_args, shapes, action_shape[1], int(longest), str(path))
    return task if obs_keys is None else select(task, obs_keys, shapes, path)
