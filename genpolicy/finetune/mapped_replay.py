"""A replay in files: it may be larger than memory, and what was collected survives a crash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genpolicy.finetune.replay import Replay
from genpolicy.runs.files import read_json, write_json
from genpolicy.spec import GenpolicyError


class MappedReplay(Replay):
    """Rows in memory-mapped ``<folder>/<name>.npy``; a checkpoint holds only their number.

    Args:
        folder: a new one, or that of the run that goes on.
        about: what the transitions mean, JSON; ``replay.json`` in the folder.
        capacity: how many.
        stride: as in ``Replay``.

    Raises:
        GenpolicyError: the folder holds transitions that mean something else.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], capacity: int, stride: int) -> None:
        super().__init__(capacity, "cpu", stride)
        self.folder, self._open = folder, False
        self._about = {**about, "capacity": capacity, "environments": stride}
        if (folder / "replay.json").exists():
            stored = read_json(folder / "replay.json")
            for name, value in self._about.items():
                if stored.get(name) != value:
                    raise GenpolicyError(
                        f"{folder}: holds transitions with {name} {stored.get(name)}, and this run "
                        f"has {value}: choose another algo.replay_dir"
                    )

    def add(self, **rows: Tensor) -> None:
        """As ``Replay``.

        Raises:
            GenpolicyError: the folder is there, and belongs to a run that this one does not resume.
        """
        if not self._open:
            try:
                self.folder.mkdir(parents=True)
            except OSError as error:
                raise GenpolicyError(
                    f"algo.replay_dir={self.folder}: cannot be created ({error.strerror}): resume "
                    "the run that it belongs to, or choose a new folder"
                ) from error
            write_json(self.folder / "replay.json", self._about)
            self._count, self._open = self._array("count", (1,), torch.int64), True
        super().add(**rows)
        self._count[0] = self._added

    def _allocate(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return self._array(name, shape, dtype)

    def _array(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        path = self.folder / f"{name}.npy"
        return torch.from_numpy(np.lib.format.open_memmap(path, "w+", kind, shape))

    def _load(self, path: Path) -> Tensor:
        try:
            return torch.from_numpy(np.lib.format.open_memmap(path, "r+"))
        except (OSError, ValueError) as error:
            raise GenpolicyError(
                f"{path}: cannot be read ({error}): it is part of a replay"
            ) from error

    def state_dict(self) -> dict[str, Any]:
        """How many there were; the system writes the files, also where this process dies."""
        return {"added": self._added, "names": sorted(self.rows)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what is in the files: also with what came after the checkpoint.

        Where something did, the environments go on from an earlier state: their chunks up to here
        end here, without an outcome.
        """
        if not state["names"]:
            return
        self._count, self._open = self._load(self.folder / "count.npy"), True
        self.rows = {name: self._load(self.folder / f"{name}.npy") for name in state["names"]}
        self._added = int(self._count[0])
        if self._added < int(state["added"]):
            raise GenpolicyError(
                f"{self.folder}: holds {self._added} transitions, and the checkpoint was written "
                f"after {state['added']}: put the folder back as it was"
            )
        if self._added > int(state["added"]):
            self.rows["ended"][self.newest(self.stride)] = True
