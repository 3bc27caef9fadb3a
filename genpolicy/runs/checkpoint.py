"""Checkpoints: a folder that appears whole or not at all, and says when its bytes have changed.

    checkpoints/step_000120000/
        config.yaml  spec.json  policy.safetensors   the shippable part: exactly what is executed
        train/model.safetensors  train/state.pt      what an exact resume needs besides
        eval.json                                    the last evaluation of these weights, if any
        manifest.json                                SHA-256 of every file above
    checkpoints/last  checkpoints/best               text files that hold a folder's name

Nothing in it can run code: safetensors, YAML and JSON, and ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genpolicy.interfaces import Algorithm
from genpolicy.runs import distributed
from genpolicy.runs.files import new_folder, read_json, sha256, write_json, write_text
from genpolicy.spec import GenpolicyError, PolicySpec

FORMAT = 1
_STEP_FOLDER = re.compile(r"step_\d{9,}")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint; weights and training state are read when asked for."""

    path: Path
    config: dict[str, Any]
    spec: PolicySpec

    @property
    def step(self) -> int:
        """Iterations finished when it was written."""
        return int(self.path.name.removeprefix("step_"))

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """Success of exactly these weights, where it was measured."""
        path = self.path / "eval.json"
        return read_json(path) if path.exists() else None

    def weights(self) -> dict[str, Tensor]:
        """``state_dict`` of the policy that is executed."""
        return load_file(self.path / "policy.safetensors")

    def training_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """This rank's ``algorithm.state_dict()`` and the loop's counters.

        Raises:
            GenpolicyError: only the shippable part is here, or another number of ranks wrote it.
        """
        if not (self.path / "train" / "state.pt").exists():
            raise GenpolicyError(f"{self.path}: has no train/ part, so it cannot be resumed from")
        stored = torch.load(self.path / "train" / "state.pt", map_location="cpu", weights_only=True)
        ranks, here = stored["ranks"], distributed.world_size()
        if len(ranks) != here:
            raise GenpolicyError(
                f"{self.path}: written by {len(ranks)} processes, cannot be resumed by {here}: "
                f"start it with torchrun --nproc-per-node {len(ranks)}"
            )
        model = load_file(self.path / "train" / "model.safetensors")
        return {**ranks[distributed.rank()], "model": model}, stored["counters"]


def save(
    folder: Path,
    step: int,
    algorithm: Algorithm,
    config: Mapping[str, Any],
    counters: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``folder/step_<step>`` and point ``last`` at it; every rank must call.

    Args:
        folder: the run's ``checkpoints`` folder.
        step: iterations finished.
        algorithm: gives its policy and its state.
        config: the resolved configuration; ``policy`` is replaced by what is really executed.
        counters: what the loop needs to continue.
        evaluation: result for exactly these weights.
    """
    state = plain(algorithm.state_dict())
    model = state.pop("model")
    ranks = distributed.gather(state)
    final = folder / f"step_{step:09d}"
    if distributed.is_main():
        policy = algorithm.policy
        config = plain({**config, "policy": policy.config_dict()})
        with new_folder(final) as aside:
            (aside / "train").mkdir()
            write_text(aside / "config.yaml", yaml.safe_dump(config, sort_keys=False))
            write_json(aside / "spec.json", policy.spec.to_dict())
            save_file(_own(policy.state_dict()), aside / "policy.safetensors")
            save_file(_own(model), aside / "train" / "model.safetensors")
            stored = {"ranks": ranks, "counters": plain(counters)}
            torch.save(stored, aside / "train" / "state.pt")
            if evaluation is not None:
                write_json(aside / "eval.json", plain(evaluation))
            _write_manifest(aside)
        write_text(folder / "last", final.name + "\n")
    distributed.wait_for_all()
    return final


def pack(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The weights of several modules, for ``model`` of an ``Algorithm.state_dict``."""
    return {
        f"{name}.{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


def unpack(model: Mapping[str, Tensor], modules: Mapping[str, nn.Module]) -> None:
    """Load what ``pack`` gave into the same modules."""
    for name, module in modules.items():
        prefix = f"{name}."
        module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in model.items() if k.startswith(prefix)}
        )


def mark_best(folder: Path, step_folder: Path) -> None:
    """Point ``best`` at ``step_folder``."""
    if distributed.is_main():
        write_text(folder / "best", step_folder.name + "\n")


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints and the best one."""
    if not distributed.is_main():
        return
    kept = {_read_pointer(folder / name) for name in ("last", "best") if (folder / name).exists()}
    for path in step_folders(folder)[:-keep]:
        if path not in kept:
            shutil.rmtree(path)


def step_folders(folder: Path) -> list[Path]:
    """All finished checkpoints in ``folder``, oldest first."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and _STEP_FOLDER.fullmatch(p.name))


def resolve(path: str | Path, prefer: str = "best") -> Path:
    """The step folder that a checkpoint argument means.

    Args:
        path: a step folder, a ``last``/``best`` file, a ``checkpoints`` folder or a run folder.
        prefer: what a run folder stands for; the other pointer serves where it is missing.

    Raises:
        GenpolicyError: there is no checkpoint.
    """
    path = Path(path)
    if path.is_file():
        return _read_pointer(path)
    if not path.is_dir():
        raise GenpolicyError(f"checkpoint {path}: no such file or folder")
    if _STEP_FOLDER.fullmatch(path.name) or (path / "manifest.json").exists():
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    for name in (prefer, "best", "last"):
        if (folder / name).is_file():
            return _read_pointer(folder / name)
    raise GenpolicyError(
        f"checkpoint {path}: holds neither a checkpoint nor checkpoints/best or checkpoints/last"
    )


def load(path: str | Path, prefer: str = "best") -> Checkpoint:
    """Find a checkpoint and check every byte of it.

    Raises:
        GenpolicyError: missing, half-written, damaged, or of a newer format.
    """
    folder = resolve(path, prefer)
    _verify(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return Checkpoint(folder, config, PolicySpec.from_dict(read_json(folder / "spec.json")))


def fingerprint(folder: Path) -> str:
    """SHA-256 over the shippable part, as the exported contract names it."""
    return read_json(folder / "manifest.json")["files"]["policy.safetensors"]


def plain(value: Any) -> Any:
    """Tensors, numbers, strings, lists and dicts only: NumPy arrays become tensors.

    Raises:
        GenpolicyError: anything else, because a checkpoint must load without running code.
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Tensor):
        return value.detach()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise GenpolicyError(f"a checkpoint cannot hold a {type(value).__name__}")


def _own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies: safetensors refuses views of shared memory."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _write_manifest(folder: Path) -> None:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    digests = {str(p.relative_to(folder)): sha256(p) for p in files}
    write_json(folder / "manifest.json", {"format": FORMAT, "files": digests})


def _verify(folder: Path) -> None:
    if not (folder / "manifest.json").exists():
        raise GenpolicyError(
            f"checkpoint {folder}: half-written (no manifest.json): use an older one"
        )
    manifest = read_json(folder / "manifest.json")
    try:
        version, files = int(manifest["format"]), dict(manifest["files"])
    except (KeyError, TypeError, ValueError) as error:
        raise GenpolicyError(f"{folder / 'manifest.json'}: malformed ({error})") from error
    if version > FORMAT:
        raise GenpolicyError(
            f"checkpoint {folder}: format {version} is newer than this genpolicy reads ({FORMAT})"
        )
    shipped_alone = not (folder / "train").exists()
    for name, digest in files.items():
        if shipped_alone and name.startswith("train/"):
            continue
        if not (folder / name).is_file():
            raise GenpolicyError(f"checkpoint {folder}: half-written ({name} is missing)")
        if sha256(folder / name) != digest:
            raise GenpolicyError(
                f"checkpoint {folder}: {name} is damaged (its bytes are not those written): "
                f"use another checkpoint"
            )


def _read_pointer(path: Path) -> Path:
    try:
        name = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        name = ""
    if not _STEP_FOLDER.fullmatch(name):
        raise GenpolicyError(f"checkpoint {path}: expected a file that names a step folder")
    if not (path.parent / name).is_dir():
        raise GenpolicyError(f"checkpoint {path}: names {name}, which is missing")
    return path.parent / name
