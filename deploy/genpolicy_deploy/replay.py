"""Run the controller again on what a log holds, and compare chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.controller import Controller
from genpolicy_deploy.flight_log import FlightLog, read_log
from genpolicy_deploy.inference import split_obs
from genpolicy_deploy.run import sha256
from genpolicy_deploy.session import versions

TOLERANCE = 1e-4  # another build of onnxruntime or another CPU may round differently


@dataclass(frozen=True)
class Replay:
    """Outcome of a comparison."""

    chunks: int
    identical: int  # bit for bit
    max_abs_err: float
    same_build: bool  # the versions that recorded and the present ones agree
    complete: bool  # the log was closed properly

    @property
    def passed(self) -> bool:
        """All bits on the same build, within ``TOLERANCE`` elsewhere."""
        if self.same_build:
            return self.identical == self.chunks
        return self.max_abs_err <= TOLERANCE


def replay(path: Path, controller_path: Path | None = None) -> Replay:
    """Replay every recorded chunk of ``path``.

    Args:
        path: the log.
        controller_path: where the controller is now, if it has moved.

    Raises:
        GenpolicyError: not a log, no such controller, or not the one that was recorded.
    """
    log = read_log(path)
    try:
        onnx = controller_path or Path(log.header["controller"])
        digest, samples = log.header["controller_sha256"], log.header["num_samples"]
        temperature, recorded = log.header["temperature"], log.header["versions"]
    except KeyError as error:
        raise GenpolicyError(f"{path}: the log's header lacks {error}") from error
    controller = Controller(onnx, samples, temperature)
    if sha256(onnx) != digest:
        raise GenpolicyError(
            f"{onnx}: not the controller that made {path}; name it with --controller"
        )
    identical, worst = _compare(log, controller)
    return Replay(len(log.chunks), identical, worst, recorded == versions(), log.complete)


def _compare(log: FlightLog, controller: Controller) -> tuple[int, float]:
    """Number of bit-identical chunks, and the largest difference."""
    identical, worst = 0, 0.0
    for record in log.chunks:
        controller.reset(int(record["seed"]))
        controller.counter = int(record["counter"])
        chunk = controller.act(
            split_obs(record["obs"], controller.contract.spec),
            previous=record["prev_actions"],
            weights=record["prev_weights"],
        )
        same = chunk.index == record["index"] and np.array_equal(chunk.actions, record["actions"])
        identical += bool(same)
        worst = max(worst, float(np.abs(chunk.actions - record["actions"]).max()))
    return identical, worst
