"""Ranks and means: all that the rest of the code knows about running in several processes.

One program on many processes, started by ``torchrun``; with one process everything is a no-op.
Every rank steps its own environments, gradients are averaged, and rank 0 writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def start(device: str) -> None:
    """Join the other processes if ``torchrun`` started several (it sets ``WORLD_SIZE``)."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")


def stop() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, 0 when alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def mean(value: Tensor) -> Tensor:
    """Element-wise mean over ranks (a new tensor; ``value`` itself when alone)."""
    if world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def mean_scalars(values: dict[str, float]) -> dict[str, float]:
    """Mean of every metric over the ranks that report it (an episode ends on some only)."""
    if world_size() == 1:
        return values
    rows = gather(values)
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: sum(column) / len(column) for name, column in columns.items()}


def any_rank(flag: bool) -> bool:
    """Whether ``flag`` holds on at least one rank; all of them learn it."""
    return bool(mean(torch.tensor(float(flag), device=_device())) > 0)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over ranks, all in one message."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    averaged = mean(torch.cat([g.reshape(-1) for g in gradients]))
    pieces = averaged.split([g.numel() for g in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))


def gather(value: Any) -> list[Any]:
    """Every rank's ``value``, in rank order, on every rank."""
    if world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def wait_for_all() -> None:
    """Go on when every rank has come here."""
    if dist.is_initialized():
        dist.barrier()


def _device() -> str:
    """Where small messages must lie: NCCL moves nothing that is on the CPU."""
    return "cuda" if dist.is_initialized() and dist.get_backend() == "nccl" else "cpu"
