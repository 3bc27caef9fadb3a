"""The loop that imitation, value learning and reinforcement learning all run in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from genpolicy.evaluate.evaluator import Evaluation
from genpolicy.interfaces import Algorithm, Metrics
from genpolicy.runs import checkpoint, distributed
from genpolicy.runs.clock import Clock
from genpolicy.runs.files import write_json
from genpolicy.runs.interrupt import Interrupt
from genpolicy.runs.logger import Logger
from genpolicy.runs.progress import ProgressBar


@dataclass(frozen=True)
class LoopConfig:
    """How long a run is, and how often it looks up from its work."""

    iterations: int  # rounds of collect and update
    log_every: int = 1  # iterations between rows of metrics.csv
    eval_every: int = 0  # iterations between evaluations; 0: never
    eval_first: bool = False  # evaluate before the first iteration too
    save_every: int = 0  # iterations between checkpoints; 0: at evaluations and at the end
    keep: int = 3  # newest checkpoints that stay, besides the best
    stop_at: float | None = None  # end once the lower bound of the task's score reaches this


@dataclass
class Counters:
    """Where a run stands; travels in every checkpoint."""

    iteration: int = 0
    wall_s: float = 0.0
    best_lo: float = -math.inf  # highest lower bound of the task's score so far


@dataclass
class Run:
    """One algorithm at work in one run folder."""

    algorithm: Algorithm
    config: LoopConfig
    run_dir: Path
    resolved: dict[str, Any]  # the whole configuration, stored in every checkpoint
    logger: Logger
    evaluate: Callable[[], Evaluation] | None = None
    counters: Counters = field(default_factory=Counters)

    def loop(self) -> None:
        """Iterate, log, evaluate and save, to the end or to Ctrl-C.

        Raises:
            Interrupted: after Ctrl-C, once the running iteration is finished and saved.
        """
        config, algorithm, start = self.config, self.algorithm, self.counters.iteration
        clock = Clock(self.counters.wall_s, algorithm.env_steps)
        if start == 0 and config.eval_first:
            self._log(clock, {}, self._evaluate())

        with Interrupt() as interrupt, ProgressBar("training", config.iterations, start) as bar:
            for iteration in range(start, config.iterations):
                clock.start()
                algorithm.collect()
                clock.lap("perf/rollout_s")
                algorithm.update()
                clock.lap("perf/update_s")

                self.counters.iteration = done = iteration + 1
                final = done == config.iterations
                evaluating = _due(done, config.eval_every, final)
                evaluation = self._evaluate() if evaluating else None
                if evaluating or final or _due(done, config.log_every):
                    self._log(clock, algorithm.metrics(), evaluation)
                reached = evaluation is not None and self._reached(evaluation)
                stop = distributed.any_rank(final or reached or interrupt.requested)
                if evaluating or stop or _due(done, config.save_every):
                    self._save(clock, evaluation)
                bar.advance(1, evaluation.summary() if evaluation else None)
                if stop:
                    break
        interrupt.raise_if_requested()

    def resume(self, stored: checkpoint.Checkpoint) -> None:
        """Continue exactly where ``stored`` was written."""
        state, counters = stored.training_state()
        self.algorithm.load_state_dict(state)
        self.counters = Counters(**counters)

    def _evaluate(self) -> Evaluation | None:
        """How good the present policy is, also written to ``eval/``; rank 0 only."""
        if self.evaluate is None or not distributed.is_main():
            return None
        evaluation = self.evaluate()
        folder = self.run_dir / "eval"
        folder.mkdir(exist_ok=True)
        write_json(folder / f"step_{self.counters.iteration:09d}.json", evaluation.to_dict())
        return evaluation

    def _reached(self, evaluation: Evaluation) -> bool:
        stop_at = self.config.stop_at
        return stop_at is not None and evaluation.score_lo >= stop_at

    def _log(self, clock: Clock, metrics: Metrics, evaluation: Evaluation | None) -> None:
        env_steps = self.algorithm.env_steps
        row = {
            "step/update": self.counters.iteration,
            "step/env": env_steps,
            "step/wall_s": clock.wall_s(),
            **distributed.mean_scalars(metrics),
            **(clock.read(env_steps) if metrics else {}),
            **(evaluation.metrics() if evaluation else {}),
        }
        self.logger.log(row)

    def _save(self, clock: Clock, evaluation: Evaluation | None) -> None:
        """A checkpoint of this moment; ``best`` where its lower bound is the highest so far."""
        self.counters.wall_s = clock.wall_s()
        better = evaluation is not None and evaluation.score_lo > self.counters.best_lo
        if evaluation is not None and better:
            self.counters.best_lo = evaluation.score_lo
        folder = self.run_dir / "checkpoints"
        saved = checkpoint.save(
            folder,
            self.counters.iteration,
            self.algorithm,
            self.resolved,
            asdict(self.counters),
            evaluation.to_dict() if evaluation else None,
        )
        if better:
            checkpoint.mark_best(folder, saved)
        checkpoint.prune(folder, self.config.keep)


def _due(done: int, every: int, final: bool = False) -> bool:
    """Whether something that happens ``every`` so many iterations happens now."""
    return every > 0 and (final or done % every == 0)
