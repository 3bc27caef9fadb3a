"""From a path to something that acts: a checkpoint of any kind, or an exported controller."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from genpolicy_deploy.contract import SAMPLES
from genpolicy_deploy.graph import Graph
from genpolicy_deploy.selection import select
from numpy.typing import NDArray
from torch import Tensor, nn

from genpolicy.policies import POLICIES, build_policy
from genpolicy.runs import checkpoint
from genpolicy.spec import GenpolicyError, Observation, PolicySpec
from genpolicy.values import VALUES, build_value
from genpolicy.values.critic import ValueFunction


def load(path: str | Path, device: str = "cpu") -> Any:
    """The policy of a checkpoint (step folder, ``best``/``last`` file, run folder) or ``.onnx``.

    Raises:
        GenpolicyError: missing, damaged, or not a policy.
    """
    if Path(path).suffix == ".onnx":
        return OnnxPolicy(path)
    return policy_of(checkpoint.load(path), device)


def policy_of(stored: checkpoint.Checkpoint, device: str = "cpu") -> Any:
    """The policy inside a verified checkpoint, in evaluation mode."""
    _check_kind(stored, POLICIES, "policy")
    return _with_weights(build_policy(stored.config["policy"], stored.spec), stored, device)


def load_value(path: str | Path, device: str = "cpu") -> ValueFunction:
    """The value function of a checkpoint that ``genpolicy value`` wrote.

    Raises:
        GenpolicyError: missing, damaged, or not a value function.
    """
    stored = checkpoint.load(path)
    _check_kind(stored, VALUES, "value function")
    return _with_weights(build_value(stored.config["policy"], stored.spec), stored, device)


def _check_kind(stored: checkpoint.Checkpoint, known: Mapping[str, Any], kind: str) -> None:
    name = stored.config.get("policy", {}).get("name")
    if name not in known:
        raise GenpolicyError(f"checkpoint {stored.path}: holds a '{name}', which is no {kind}")


def _with_weights(module: nn.Module, stored: checkpoint.Checkpoint, device: str) -> Any:
    try:
        module.load_state_dict(stored.weights())
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise GenpolicyError(
            f"checkpoint {stored.path}: config.yaml and policy.safetensors disagree: {reason}"
        ) from error
    return module.to(device).eval()


class OnnxPolicy:
    """An exported controller behind a policy's ``sample`` and ``act``, for evaluation.

    One observation at a time, because a robot's graph has no batch axis. Each of the ``N`` samples
    asked for is the controller's choice among ``num_samples``, as on the robot.
    """

    def __init__(
        self, path: str | Path, num_samples: int | None = None, temperature: float | None = None
    ) -> None:
        self.graph = Graph(path)
        contract = self.graph.contract
        self.spec: PolicySpec = contract.spec
        self.num_samples = contract.num_samples if num_samples is None else num_samples
        self.temperature = contract.temperature if temperature is None else temperature
        if self.num_samples > 1 and not contract.has_scores:
            raise GenpolicyError(f"{path}: has no value function, so num_samples must be 1")
        # The contract describes one observation: its axis stands before that of the samples.
        self._obs_axis = {n: shape.index(SAMPLES) - 1 for n, shape in contract.noise.items()}
        self.rng = np.random.default_rng(0)

    def noise_spec(self, batch: int, num_samples: int = 1) -> dict[str, tuple[int, ...]]:
        """Shapes of the draws for ``batch`` observations."""
        total = num_samples * self.num_samples
        shapes = self.graph.contract.noise_shapes(total)
        spec = {
            name: (*shape[: self._obs_axis[name]], batch, *shape[self._obs_axis[name] + 1 :])
            for name, shape in shapes.items()
        }
        if self.temperature > 0 and self.num_samples > 1:
            spec["choice"] = (batch, total)
        return spec

    def sample(
        self,
        obs: Mapping[str, Tensor],
        *,
        noise: Mapping[str, Tensor] | None = None,
        num_samples: int = 1,
        deterministic: bool = True,
    ) -> Tensor:
        """``{name: [B, To, D]}`` to ``[B, N, Tp, Da]``; a controller is always deterministic."""
        arrays = {name: value.numpy() for name, value in obs.items()}
        batch = len(next(iter(arrays.values())))
        draws = (
            {name: value.numpy() for name, value in noise.items()}
            if noise is not None
            else {
                name: self.rng.standard_normal(shape, dtype=np.float32)
                for name, shape in self.noise_spec(batch, num_samples).items()
            }
        )
        chunks = [self._one(arrays, draws, b, num_samples) for b in range(batch)]
        return torch.from_numpy(np.stack(chunks))

    def _one(
        self, obs: Mapping[str, Any], noise: Mapping[str, Any], b: int, num_samples: int
    ) -> NDArray[np.float32]:
        """The chosen chunks ``[N, Tp, Da]`` at observation ``b``."""
        actions, scores = self.graph.predict(
            {name: value[b : b + 1] for name, value in obs.items()},
            {name: np.take(noise[name], [b], axis=axis) for name, axis in self._obs_axis.items()},
        )
        if self.num_samples == 1 or scores is None:
            return actions.copy()
        choice = noise["choice"][b].reshape(num_samples, -1) if "choice" in noise else None
        best = [
            select(group, self.temperature, None if choice is None else choice[i])
            for i, group in enumerate(scores.reshape(num_samples, -1))
        ]
        return actions[np.arange(num_samples) * self.num_samples + best]

    def act(self, obs: Observation) -> NDArray[np.float32]:
        """One choice per observation, its first Ta actions: ``[B, Ta, Da]``."""
        tensors = {
            f.name: torch.from_numpy(np.asarray(obs[f.name], dtype=np.float32))
            for f in self.spec.task.observations
        }
        return self.sample(tensors)[:, 0, : self.spec.exec_steps].numpy()
