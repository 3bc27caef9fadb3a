"""Imitation: minimise a generative policy's loss on windows of demonstrations.

The recipe of Diffusion Policy (arXiv 2303.04137) and DPPO (arXiv 2409.00588): AdamW, a cosine
learning rate after a short warm-up, and an exponential moving average of the weights, which is
what is evaluated, fine-tuned and exported. One iteration is one gradient step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from genpolicy.data.normalizer import Normalizer
from genpolicy.data.windows import ChunkDataset
from genpolicy.interfaces import Metrics
from genpolicy.policies.base import ChunkPolicy
from genpolicy.pretrain.ema import Ema
from genpolicy.runs import distributed
from genpolicy.spec import GenpolicyError


@dataclass(frozen=True)
class ImitationConfig:
    """How a policy is fitted to demonstrations.

    Attributes:
        batch_size: Windows per gradient step, of all processes together.
        lr: Learning rate after the warm-up.
        lr_final: Learning rate at the end of the cosine.
        warmup_steps: Steps over which the learning rate rises linearly.
        decay_steps: Step at which the cosine ends; 0 keeps ``lr`` constant.
        weight_decay: Decoupled weight decay of AdamW.
        grad_clip: Largest norm of the gradient.
        ema_decay: Decay of the weights' moving average.
        bf16: Run the network under bfloat16 autocast (the weights stay float32).
    """

    batch_size: int = 256
    lr: float = 1e-3
    lr_final: float = 1e-4
    warmup_steps: int = 100
    decay_steps: int = 0
    weight_decay: float = 1e-6
    grad_clip: float = 1.0
    ema_decay: float = 0.995
    bf16: bool = False

    def __post_init__(self) -> None:
        """Refuse values with which nothing can be learned."""
        if self.batch_size < 1 or self.lr <= 0 or self.grad_clip <= 0:
            raise GenpolicyError("algo: batch_size, lr and grad_clip must be positive")
        if self.batch_size % distributed.world_size():
            raise GenpolicyError(
                f"algo.batch_size={self.batch_size} must be a multiple of the "
                f"{distributed.world_size()} processes"
            )
        if not 0 <= self.ema_decay < 1:
            raise GenpolicyError(f"algo.ema_decay={self.ema_decay} must lie in [0, 1)")


class Imitation:
    """Fits ``model`` to the windows of ``dataset``; ``policy`` is its moving average.

    The policy's normaliser is fitted here to the data that it imitates, if none is given.
    """

    env_steps = 0

    def __init__(
        self,
        policy: ChunkPolicy,
        dataset: ChunkDataset,
        config: ImitationConfig | None = None,
        *,
        seed: int = 0,
        normalizer: Normalizer | None = None,
    ) -> None:
        self.config = config or ImitationConfig()
        self.dataset = dataset
        self.model = policy.to(dataset.device)
        normalizer = normalizer or dataset.normalizer()
        self.model.normalizer.load_state_dict(normalizer.state_dict())
        # The order of the data is the same in every process, the noise of the loss is not.
        self.order_rng = np.random.default_rng([seed, 0])
        self.model.rng = np.random.default_rng([seed, 1, distributed.rank()])
        self.ema = Ema(self.model, self.config.ema_decay)
        self.policy = self.ema.module
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.config.lr,
            weight_decay=self.config.weight_decay,
            fused=True,
        )
        self.step = 0
        self._queue: NDArray[np.int64] = np.empty(0, np.int64)  # what is left of this epoch
        self._metrics: dict[str, Tensor] = {}

    def collect(self) -> None:
        """Draw one minibatch: epochs are permutations, joined end to end."""
        size = self.config.batch_size
        while len(self._queue) < size:
            epoch = self.order_rng.permutation(len(self.dataset))
            self._queue = np.concatenate([self._queue, epoch])
        indices, self._queue = self._queue[:size], self._queue[size:]
        mine = indices[distributed.rank() :: distributed.world_size()]
        self._batch = self.dataset.batch(torch.from_numpy(mine))

    def update(self) -> None:
        """One gradient step on it."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        with torch.autocast(self.dataset.device.type, torch.bfloat16, enabled=self.config.bf16):
            loss, self._metrics = self.model.loss(self._batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        distributed.average_gradients(self.model.parameters())
        norm = clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.optimizer.step()
        self.ema.update()
        self.step += 1
        self._metrics |= {"train/loss": loss.detach(), "train/grad_norm": norm}

    def metrics(self) -> Metrics:
        """``train/loss``, ``train/grad_norm``, ``train/lr``, and what the policy's loss reports."""
        values = {name: float(value) for name, value in self._metrics.items()}
        return values | {"train/lr": self.optimizer.param_groups[0]["lr"]}

    def state_dict(self) -> dict[str, Any]:
        """Everything that continues bit for bit."""
        return {
            "model": self.model.state_dict(),
            "ema": self.policy.state_dict(),
            "ema_steps": self.ema.steps,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "order_rng": self.order_rng.bit_generator.state,
            "noise_rng": self.model.rng.bit_generator.state,
            "queue": torch.from_numpy(self._queue.copy()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.model.load_state_dict(state["model"])
        self.policy.load_state_dict(state["ema"])
        self.ema.steps = state["ema_steps"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.order_rng.bit_generator.state = state["order_rng"]
        self.model.rng.bit_generator.state = state["noise_rng"]
        self._queue = state["queue"].numpy()


def learning_rate(config: ImitationConfig, step: int) -> float:
    """Linear warm-up, then half a cosine from ``lr`` to ``lr_final`` at ``decay_steps``."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.decay_steps == 0:
        return config.lr * warmup
    past = max(0, step - config.warmup_steps) / max(1, config.decay_steps - config.warmup_steps)
    cosine = (1 + math.cos(math.pi * min(1.0, past))) / 2
    return warmup * (config.lr_final + (config.lr - config.lr_final) * cosine)
