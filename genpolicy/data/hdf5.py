"""Demonstrations from HDF5 files: robomimic's, Minari's or D4RL's, told apart by their content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py

from genpolicy.data import minari, robomimic
from genpolicy.data.demonstrations import Demonstrations, Episode, check_episode
from genpolicy.data.foreign_task import number
from genpolicy.spec import GenpolicyError, TaskSpec


def read_demonstrations(
    paths: str | Path | Sequence[str | Path],
    *,
    task: TaskSpec | None = None,
    obs_keys: Sequence[str] | None = None,
    max_episodes: int | None = None,
    mask: str | None = None,
) -> Demonstrations:
    """Read one file, or several files of the same task one after the other.

    Args:
        paths: The files.
        task: What the numbers mean in files that do not say (Minari's, D4RL's), from the simulator
            that they come from; default: what shapes and ``env_spec`` tell.
        obs_keys: Observations to read, in this order; default: those of the task.
        max_episodes: Only the first so many, of all files together.
        mask: Only the demonstrations named by ``mask/<mask>`` (robomimic's files).

    Raises:
        GenpolicyError: Anything that is missing, broken, inconsistent or not finite.
    """
    files = [Path(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]
    if not files:
        raise GenpolicyError("data.path: name at least one HDF5 file")
    if max_episodes is not None and max_episodes < 1:
        raise GenpolicyError(f"data.max_episodes={max_episodes}: ask for at least one episode")
    episodes: list[Episode] = []
    common: TaskSpec | None = None
    for path in files:
        left = None if max_episodes is None else max_episodes - len(episodes)
        if left == 0:
            break
        found, file_task = _read_file(path, task, obs_keys, left, mask)
        common = file_task if common is None else _agree(common, file_task, files[0], path)
        episodes += found
    assert common is not None
    return Demonstrations.from_episodes(episodes, common, [str(path) for path in files])


def _read_file(
    path: Path,
    task: TaskSpec | None,
    obs_keys: Sequence[str] | None,
    max_episodes: int | None,
    mask: str | None,
) -> tuple[list[Episode], TaskSpec]:
    """Episodes and task of one file, checked against each other."""
    if not path.is_file():
        raise GenpolicyError(f"{path}: no such file: check data.path, or run `genpolicy collect`")
    if path.stat().st_size == 0:
        raise GenpolicyError(f"{path}: the file is empty: collect or download it again")
    try:
        with h5py.File(path, "r") as file:
            layout = _layout(file, path)
            if layout is robomimic:
                episodes, own = robomimic.read_episodes(file, path, obs_keys, max_episodes, mask)
            elif mask is not None:
                raise GenpolicyError(f"{path}: has no masks: leave out data.mask={mask}")
            else:
                episodes, own = minari.read_episodes(file, path, task, obs_keys, max_episodes)
    except OSError as error:
        raise GenpolicyError(
            f"{path}: not a whole HDF5 file ({error}): collect or download it again"
        ) from error
    for name, episode in episodes.items():
        check_episode(episode, own, f"{path}: {name}")
    return list(episodes.values()), own


def _layout(file: Any, path: Path) -> Any:
    """The module that reads it."""
    if isinstance(file.get("data"), h5py.Group):
        return robomimic
    if "observations" in file or any(number(name, "episode_") is not None for name in file):
        return minari
    raise GenpolicyError(
        f"{path}: neither robomimic's group `data` nor Minari's `episode_0` nor D4RL's "
        f"`observations` (there is {sorted(file)}): this is no file of demonstrations"
    )


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
