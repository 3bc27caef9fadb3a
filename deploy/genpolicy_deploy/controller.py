"""A controller built from the .onnx file alone: observation in, chunk of actions out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genpolicy.spec import GenpolicyError
from genpolicy_deploy.contract import SAMPLES, Arrays, Contract
from genpolicy_deploy.graph import FloatArray, Graph
from genpolicy_deploy.history import History
from genpolicy_deploy.selection import select

WARM_UP_RUNS = 20


class Chunk(NamedTuple):
    """What ``act`` chose."""

    actions: FloatArray  # [Tp, Da] in task units, of which Ta are executed
    index: int  # which sample
    score: float  # its value, NaN without a value function
    counter: int  # how many chunks were drawn since reset: with the seed it fixes the noise
    t: float  # the time the observation carried, s


class Controller:
    """Policy, value function and selection behind ``reset`` and ``act``.

    Sample i of chunk c is drawn from a stream that depends on (seed, c) and on i alone, so a log
    that holds the seed can be replayed bit for bit, and sample 0 is the same for every
    ``num_samples``: with one sample, the controller is the base policy exactly.

    Args:
        path: the exported file.
        num_samples: samples to choose from; by default the file's own.
        temperature: of the choice, see ``select``; by default the file's own.
        seed: of the noise.

    Raises:
        GenpolicyError: as ``Graph``, or more than one sample without a value function.
    """

    def __init__(
        self,
        path: str | Path,
        num_samples: int | None = None,
        temperature: float | None = None,
        seed: int = 0,
    ) -> None:
        self.graph = Graph(path)
        contract = self.contract
        self.num_samples = contract.num_samples if num_samples is None else num_samples
        self.temperature = contract.temperature if temperature is None else temperature
        if self.num_samples < 1 or not self.temperature >= 0.0:
            raise GenpolicyError("num_samples must be at least 1 and temperature not negative")
        if self.num_samples > 1 and not contract.has_scores:
            raise GenpolicyError(
                f"{path}: num_samples={self.num_samples} needs a value function to choose with; "
                "export with value=CKPT or use num_samples=1"
            )
        self._buffers = self.graph.buffers(self.num_samples)
        self._history = History(contract.spec)
        self.reset(seed)

    @property
    def contract(self) -> Contract:
        """What the file says about itself."""
        return self.graph.contract

    def reset(self, seed: int | None = None) -> None:
        """Start an episode: forget the history and, given a seed, restart the noise."""
        self._history.reset()
        if seed is not None:
            self.seed = seed
            self.counter = 0

    def observe(self, observation: Mapping[str, NDArray[Any]]) -> None:
        """Append ``{key: [D]}`` to the history, for control steps at which nothing is asked."""
        self._history.push(observation)

    def act(
        self,
        observation: Mapping[str, NDArray[Any]],
        t: float = 0.0,
        *,
        previous: NDArray[Any] | None = None,
        weights: NDArray[Any] | None = None,
    ) -> Chunk:
        """The next chunk, from ``{key: [D]}`` (appended to the history) or ``{key: [To, D]}``.

        Args:
            observation: what was measured.
            t: when, s; handed on.
            previous: ``[Tp, Da]`` what is left of the chunk being executed, next action first.
            weights: ``[Tp]`` how much each of its rows binds; all 0, as by default: not at all.

        Raises:
            GenpolicyError: the observation misses a key, has another shape or is not finite, or
                the graph's output is not finite. No actions are returned then.
        """
        self._history.push(observation)
        self._buffers.write_obs(self._history.stacked)
        self._buffers.write_previous(previous, weights)
        self._draw()
        actions, scores = self.graph.run(self._buffers)
        index = self._select(scores)
        if not np.isfinite(actions[index]).all():
            raise GenpolicyError(f"{self.graph.path}: the controller's actions are not finite")
        score = float("nan") if scores is None else float(scores[index])
        chunk = Chunk(actions[index].copy(), index, score, self.counter, t)
        self.counter += 1
        return chunk

    def predict(
        self, obs: Mapping[str, NDArray[Any]], noise: Mapping[str, NDArray[Any]]
    ) -> tuple[FloatArray, FloatArray | None]:
        """The bare graph, see ``Graph.predict``: no history, no draw, no choice."""
        return self.graph.predict(obs, noise)

    def warm_up(self, runs: int = WARM_UP_RUNS) -> None:
        """Run on the golden observation: first runs allocate and are up to ten times slower."""
        golden = self.contract.golden.inputs
        self._buffers.write_obs({name: golden[f"obs.{name}"] for name in self.graph.obs_names})
        for _ in range(runs):
            self.graph.run(self._buffers)

    def _draw(self) -> None:
        """Standard-normal noise of this chunk into the bound inputs."""
        for stream, (name, shape) in enumerate(self.contract.noise.items()):
            target = np.moveaxis(self._buffers.inputs[name], shape.index(SAMPLES), 0)
            rng = self._stream(stream)
            for sample in target:  # per sample, so that sample i does not depend on N
                sample[...] = rng.standard_normal(sample.shape, dtype=np.float32)

    def _select(self, scores: FloatArray | None) -> int:
        if scores is None or self.num_samples == 1:
            return 0
        choice = self._stream(len(self.contract.noise)).standard_normal(
            self.num_samples, dtype=np.float32
        )
        return select(scores, self.temperature, choice)

    def _stream(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.counter, index])

    def noise(self) -> Arrays:
        """The noise of the last ``act`` (the bound inputs themselves, not a copy)."""
        return {name: self._buffers.inputs[name] for name in self.contract.noise}
