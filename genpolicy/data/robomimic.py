"""robomimic HDF5 files (https://robomimic.github.io, formats v0.1 to v1.5): the reader.

    data                  attrs: total, env_args (JSON), and ours: genpolicy_task (JSON)
    data/demo_<i>         attrs: num_samples, model_file (robosuite's XML)
      states [T, S]       flattened simulator states [time, qpos, qvel]
      actions [T, A]   rewards [T]   dones [T]   obs/<key> [T, ...]   next_obs/<key> [T, ...]
    mask/<name>           demo names as bytes, e.g. train and valid

``robomimic_writer.py`` writes them. Files of other people carry no ``genpolicy_task``:
``foreign_task.py`` derives it from their ``env_args``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from genpolicy.data.demonstrations import Demonstrations, Episode, check_episode
from genpolicy.data.foreign_task import derive_task
from genpolicy.data.robomimic_writer import TASK_ATTRIBUTE, RobomimicWriter
from genpolicy.spec import Feature, GenpolicyError, TaskSpec

__all__ = ["TASK_ATTRIBUTE", "RobomimicWriter", "read_robomimic"]


def read_robomimic(
    paths: str | Path | Sequence[str | Path],
    *,
    obs_keys: Sequence[str] | None = None,
    max_episodes: int | None = None,
    mask: str | None = None,
) -> Demonstrations:
    """Read one file, or several files of the same task one after the other.

    Args:
        paths: The files.
        obs_keys: Observations to read, in this order; default: those of the task.
        max_episodes: Only the first so many, of all files together.
        mask: Only the demonstrations named by ``mask/<mask>``.

    Raises:
        GenpolicyError: Anything that is missing, broken, inconsistent or not finite.
    """
    files = [Path(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    if not files:
        raise GenpolicyError("data.path: name at least one HDF5 file")
    if max_episodes is not None and max_episodes < 1:
        raise GenpolicyError(f"data.max_episodes={max_episodes}: ask for at least one episode")
    episodes: list[Episode] = []
    task: TaskSpec | None = None
    for path in files:
        left = None if max_episodes is None else max_episodes - len(episodes)
        if left == 0:
            break
        found, file_task = _read_file(path, obs_keys, left, mask)
        task = file_task if task is None else _agree(task, file_task, files[0], path)
        episodes += found
    assert task is not None
    return Demonstrations.from_episodes(episodes, task, [str(path) for path in files])


def _read_file(
    path: Path, obs_keys: Sequence[str] | None, max_episodes: int | None, mask: str | None
) -> tuple[list[Episode], TaskSpec]:
    """Episodes and task of one file, checked against each other."""
    if not path.is_file():
        raise GenpolicyError(f"{path}: no such file: check data.path, or run `genpolicy collect`")
    if path.stat().st_size == 0:
        raise GenpolicyError(f"{path}: the file is empty: collect or download it again")
    try:
        with h5py.File(path, "r") as opened:
            file: Any = opened  # h5py's types cannot tell groups from datasets
            names = _demo_names(file, path, mask)[:max_episodes]
            task = _task(file, path, names, obs_keys)
            keys = [feature.name for feature in task.observations]
            episodes = [_read_demo(file["data"][name], keys, f"{path}: {name}") for name in names]
    except OSError as error:
        raise GenpolicyError(
            f"{path}: not a whole HDF5 file ({error}): collect or download it again"
        ) from error
    for name, episode in zip(names, episodes, strict=True):
        check_episode(episode, task, f"{path}: {name}")
    return episodes, task


def _demo_names(file: Any, path: Path, mask: str | None) -> list[str]:
    """Names of the demonstrations to read, in the order of their numbers."""
    if not isinstance(file.get("data"), h5py.Group):
        raise GenpolicyError(
            f"{path}: no group `data` (there is {sorted(file)}): this is not a robomimic file"
        )
    present = [name for name in file["data"] if _number(name) is not None]
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
    return sorted(names, key=lambda name: _number(name) or 0)


def _number(name: str) -> int | None:
    suffix = name.removeprefix("demo_")
    return int(suffix) if suffix != name and suffix.isdecimal() else None


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
        stated = _json(data.attrs[TASK_ATTRIBUTE], path, TASK_ATTRIBUTE)
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
        env_args = _json(data.attrs["env_args"], path, "env_args")
        longest = max(data[name].attrs.get("num_samples", 1) for name in names)
        task = derive_task(env_args, shapes, action_shape[1], int(longest), str(path))
    return task if obs_keys is None else _select(task, obs_keys, shapes, path)


def _select(
    task: TaskSpec, obs_keys: Sequence[str], shapes: dict[str, tuple[int, ...]], path: Path
) -> TaskSpec:
    """The task with these observations only; units stay known where the task knew them."""
    known = {feature.name: feature for feature in task.observations}
    unknown = [key for key in obs_keys if key not in shapes]
    if unknown or not obs_keys:
        raise GenpolicyError(
            f"{path}: no observation {unknown}: choose observation keys among {sorted(shapes)}"
        )
    features = tuple(known.get(key, Feature(key, tuple(shapes[key]))) for key in obs_keys)
    return replace(task, observations=features)


def _json(text: Any, path: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (TypeError, ValueError) as error:
        raise GenpolicyError(f"{path}: attribute {name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise GenpolicyError(f"{path}: attribute {name} is not a JSON object")
    return value


def _agree(first: TaskSpec, other: TaskSpec, first_path: Path, path: Path) -> TaskSpec:
    """One task for both files; only horizon and recording versions may differ."""
    longest = max(first.max_episode_steps, other.max_episode_steps)
    merged = replace(first, max_episode_steps=longest)
    same = replace(other, max_episode_steps=longest, versions=first.versions)
    for name, value in merged.to_dict().items():
        if value != same.to_dict()[name]:
            raise GenpolicyError(
                f"{path}: {name} differs from that of {first_path}: train on files of one task"
            )
    return merged
