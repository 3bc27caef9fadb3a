"""robomimic HDF5 files: the writer. The schema stands in ``robomimic.py``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from genpolicy.data.demonstrations import Episode, check_episode
from genpolicy.runs.files import refuse_existing
from genpolicy.runs.files import sync_folder as sync
from genpolicy.spec import GenpolicyError, TaskSpec

TASK_ATTRIBUTE = "genpolicy_task"
VALID_EVERY = 10  # every tenth demonstration goes into mask/valid, as robomimic's 90/10 split


class RobomimicWriter:
    """Writes one robomimic file; a context manager.

    The file is built beside its destination and renamed when whole, so a reader never sees half
    of one. An exception inside the ``with`` block removes what was written.
    """

    def __init__(
        self,
        path: str | Path,
        env_args: dict[str, Any],
        task: TaskSpec,
        *,
        model_file: str = "",
    ) -> None:
        """Open the file aside.

        Args:
            path: Destination; must not exist.
            env_args: robomimic's ``{"env_name", "env_version", "type", "env_kwargs"}``.
            task: What observations and actions mean.
            model_file: MuJoCo XML of the scene, which robosuite's playback needs.

        Raises:
            GenpolicyError: The destination exists, or its folder cannot be written.
        """
        self.path = Path(path)
        self.task = task
        self.num_episodes = 0
        self._model_file = model_file
        self._total = 0
        refuse_existing(self.path, "file name")
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = h5py.File(self._partial, "x")
        except OSError as error:
            raise GenpolicyError(f"{self.path}: cannot write there: {error}") from error
        self._data = self._file.create_group("data")
        self._data.attrs["env_args"] = json.dumps(env_args)
        self._data.attrs[TASK_ATTRIBUTE] = json.dumps(task.to_dict())

    def add(self, episode: Episode) -> None:
        """Append one episode as ``demo_<i>``.

        Raises:
            GenpolicyError: The episode does not fit the task or holds a value that is not finite.
        """
        name = f"demo_{self.num_episodes}"
        check_episode(episode, self.task, f"{self.path}: {name}")
        demo = self._data.create_group(name)
        demo.attrs["num_samples"] = len(episode)
        if self._model_file:
            demo.attrs["model_file"] = self._model_file
        arrays = episode.arrays()
        # robomimic loads `states` always; its own convention for "no simulator" is a dummy.
        arrays.setdefault("states", np.zeros((len(episode), 1)))
        arrays["dones"] = arrays["dones"].astype(np.int64)
        for key, array in arrays.items():
            demo.create_dataset(key, data=array)
        self.num_episodes += 1
        self._total += len(episode)

    def close(self) -> None:
        """Write the masks, make the file durable and put it in its place."""
        try:
            self._finish()
        except BaseException:
            self.abort()
            raise

    def _finish(self) -> None:
        if self.num_episodes == 0:
            raise GenpolicyError(f"{self.path}: nothing to write: not one episode was collected")
        names = np.array([f"demo_{i}".encode() for i in range(self.num_episodes)])
        valid = np.arange(self.num_episodes) % VALID_EVERY == VALID_EVERY - 1
        self._file["mask/train"], self._file["mask/valid"] = names[~valid], names[valid]
        self._data.attrs["total"] = self._total
        self._file.close()
        sync(self._partial)
        refuse_existing(self.path, "file name")
        self._partial.rename(self.path)
        sync(self.path.parent)

    def abort(self) -> None:
        """Remove what was written."""
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> RobomimicWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
