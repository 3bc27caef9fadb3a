"""Minari's HDF5 files (https://minari.farama.org) and D4RL's older flat ones: the reader.

    episode_<i>                     main_data.hdf5 of a Minari data set, attrs: total_steps
      observations [T + 1, ...]     an array, or a group of arrays by name
      actions [T, A]   rewards [T]   terminations [T]   truncations [T]
    attributes, or metadata.json beside it: env_spec and action_space (JSON)

    observations [T, D]   actions [T, A]   rewards [T]   terminals [T]   timeouts [T]
    next_observations [T, D]        optional: D4RL, all episodes one after the other

``hdf5.py`` opens and checks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from genpolicy.data.demonstrations import Arrays, Episode
from genpolicy.data.foreign_task import derive_gym_task, number, parse_json, select
from genpolicy.spec import GenpolicyError, TaskSpec

OBSERVATION = "observation"  # what a single array of observations is called, as in our simulator
MINARI_FLAGS = ("terminations", "truncations")
D4RL_FLAGS = ("terminals", "timeouts")


def read_episodes(
    file: Any,
    path: Path,
    task: TaskSpec | None,
    obs_keys: Sequence[str] | None,
    max_episodes: int | None,
) -> tuple[dict[str, Episode], TaskSpec]:
    """Episodes of one opened file by name, not yet checked, and their task.

    Raises:
        GenpolicyError: A dataset is missing, lengths disagree, or the sizes are not the task's.
    """
    if "observations" in file:
        episodes = _d4rl(file, str(path), max_episodes)
    else:
        numbers = sorted(i for name in file if (i := number(name, "episode_")) is not None)
        names = [f"episode_{i}" for i in numbers[:max_episodes]]
        episodes = {name: _minari(file[name], f"{path}: {name}") for name in names}
    first = next(iter(episodes.values()))
    if task is None:
        task = _derive(file, path, episodes, first)
    elif len(task.observations) == 1 and list(first.obs) == [OBSERVATION]:
        name = task.observations[0].name
        for episode in episodes.values():
            episode.obs = {name: episode.obs[OBSERVATION]}
            if episode.next_obs is not None:
                episode.next_obs = {name: episode.next_obs[OBSERVATION]}
    shapes = {name: array.shape[1:] for name, array in first.obs.items()}
    if obs_keys is not None:
        task = select(task, obs_keys, shapes, path)
    _check_sizes(first, shapes, task, path)
    return episodes, task


def _minari(group: Any, where: str) -> Episode:
    terminations, _ = _flags(group, MINARI_FLAGS, where)
    actions = _column(group, "actions", where)
    steps, seen = len(actions), _observations(group, where)
    for name, array in seen.items():
        if len(array) != steps + 1:
            raise GenpolicyError(
                f"{where}: {name} has {len(array)} rows for {steps} actions, not one more: this is "
                "not a whole Minari episode"
            )
    if terminations[:-1].any():
        raise GenpolicyError(
            f"{where}: terminated at step {np.argmax(terminations)} of {steps} but goes on: split "
            "it there"
        )
    return Episode(
        obs={name: array[:-1] for name, array in seen.items()},
        next_obs={name: array[1:] for name, array in seen.items()},
        actions=actions,
        rewards=_column(group, "rewards", where).reshape(-1),
        dones=terminations,
    )


def _observations(group: Any, where: str) -> Arrays:
    """``{name: [T + 1, D]}``; of dictionaries inside dictionaries the first level only."""
    found = group.get("observations")
    if isinstance(found, h5py.Group):
        arrays = {name: item[:] for name, item in found.items() if isinstance(item, h5py.Dataset)}
    else:
        arrays = {OBSERVATION: _column(group, "observations", where)}
    return {name: a[:, None] if a.ndim == 1 else a for name, a in arrays.items()}


def _d4rl(file: Any, where: str, max_episodes: int | None) -> dict[str, Episode]:
    """Views of the flat arrays, cut after every terminal state and every timeout."""
    terminals, timeouts = _flags(file, D4RL_FLAGS, where)
    columns = {name: _column(file, name, where) for name in ("observations", "actions", "rewards")}
    if "next_observations" in file:
        columns["next_observations"] = _column(file, "next_observations", where)
    columns |= dict(zip(D4RL_FLAGS, (terminals, timeouts), strict=True))
    steps = len(columns["actions"])
    if steps == 0:
        raise GenpolicyError(f"{where}: zero steps: collect or download it again")
    for name, array in columns.items():
        if len(array) != steps:
            raise GenpolicyError(
                f"{where}: {name} has {len(array)} rows but actions has {steps}: the file was cut"
            )
    ends = np.flatnonzero(terminals | timeouts) + 1
    if not len(ends) or ends[-1] != steps:
        ends = np.append(ends, steps)  # recording stopped in the middle of an episode
    starts = np.concatenate([[0], ends[:-1]])
    pairs = zip(starts[:max_episodes].tolist(), ends[:max_episodes].tolist(), strict=True)
    return {f"steps {a} to {b - 1}": _rows(columns, slice(a, b)) for a, b in pairs}


def _rows(columns: Arrays, rows: slice) -> Episode:
    after = columns.get("next_observations")
    return Episode(
        obs={OBSERVATION: columns["observations"][rows]},
        next_obs=None if after is None else {OBSERVATION: after[rows]},
        actions=columns["actions"][rows],
        rewards=columns["rewards"][rows].reshape(-1),
        dones=columns["terminals"][rows],
    )


def _flags(group: Any, names: tuple[str, str], where: str) -> list[NDArray[np.bool_]]:
    """Where the task ended it, and where time did: without both, ends say nothing about value."""
    for name in names:
        if name not in group:
            raise GenpolicyError(
                f"{where}: no terminal flags `{name}` (there is {sorted(group)}): where episodes "
                "end, and whether by the task or by time, must be in the file"
            )
    return [(_column(group, name, where) != 0).reshape(-1) for name in names]


def _column(group: Any, name: str, where: str) -> NDArray[Any]:
    if not isinstance(group.get(name), h5py.Dataset) or not group[name].shape:
        raise GenpolicyError(f"{where}: no dataset `{name}` (there is {sorted(group)})")
    return group[name][:]


def _derive(file: Any, path: Path, episodes: Mapping[str, Episode], first: Episode) -> TaskSpec:
    """The task as far as the file and ``metadata.json`` beside it tell."""
    facts = dict(file.attrs)
    beside = path.with_name("metadata.json")
    if beside.is_file():
        facts = parse_json(beside.read_text(encoding="utf-8"), beside, "content") | facts
    env_spec, action_space = (
        parse_json(facts[key], path, key) if facts.get(key) else {}
        for key in ("env_spec", "action_space")
    )
    shapes = {name: array.shape[1:] for name, array in first.obs.items()}
    longest = max(len(episode) for episode in episodes.values())
    dim = first.actions.shape[1] if first.actions.ndim == 2 else 0
    if not dim:
        raise GenpolicyError(f"{path}: actions must be [steps, dims], got {first.actions.shape}")
    return derive_gym_task(env_spec, action_space, shapes, dim, longest, path.stem)


def _check_sizes(
    first: Episode, shapes: Mapping[str, tuple[int, ...]], task: TaskSpec, path: Path
) -> None:
    """Refuse data of another task by what people know it by: the sizes."""
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    sizes = {feature.name: sizes.get(feature.name, 0) for feature in task.observations}
    if missing := [name for name in sizes if name not in shapes]:
        raise GenpolicyError(
            f"{path}: dataset has observations {sorted(shapes)}, task {task.task} needs "
            f"{missing[0]}"
        )
    actions = int(np.prod(first.actions.shape[1:]))
    for what, ours, theirs in (
        ("observation", sum(sizes.values()), task.obs_dim),
        ("action", actions, task.action.dim),
    ):
        if ours != theirs:
            raise GenpolicyError(
                f"{path}: dataset has {what} size {ours}, task {task.task} {theirs}: choose the "
                "task that it was recorded in"
            )
