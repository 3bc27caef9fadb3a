"""The loop: exact resume, interruption, the best checkpoint, early end, what is logged when."""

import os
import signal

import numpy as np
import pytest
import torch
from toy_env import SlideEnv, SlidePolicy

from genpolicy.evaluate.evaluator import Evaluation, evaluate
from genpolicy.runs import checkpoint
from genpolicy.runs.interrupt import Interrupted
from genpolicy.runs.logger import Logger, read_csv
from genpolicy.runs.loop import LoopConfig, Run


def start(run_dir, algorithm, evaluate=None, resume=False, **config):
    run_dir.mkdir(exist_ok=True)
    stored = checkpoint.load(run_dir, prefer="last") if resume else None
    logger = Logger(run_dir, {}, mode="disabled", resume_step=stored.step if stored else None)
    run = Run(algorithm, LoopConfig(**config), run_dir, {"seed": 0}, logger, evaluate)
    if stored:
        run.resume(stored)
    run.loop()
    return run


def outcomes(*successes):
    """An evaluate function that reports so many successes of 100, call by call."""
    queue = list(successes)

    def run():
        success = np.arange(100) < queue.pop(0)
        return Evaluation(0, success, success * 1.0, np.ones(100, np.int64))

    return run


def weights(algorithm):
    return torch.cat([p.detach().flatten() for p in algorithm.policy.parameters()])


def without_times(run_dir):
    rows = read_csv(run_dir / "metrics.csv")
    return [
        {k: v for k, v in row.items() if not k.startswith("perf/") and k != "step/wall_s"}
        for row in rows
    ]


def test_resumed_equals_uninterrupted(tmp_path, make_algorithm):
    """Bit for bit: weights, generators, metrics; evaluation in between must not disturb either."""

    def measure():
        return evaluate(SlidePolicy(), SlideEnv(5), episodes=5, seed0=0)

    whole, first, second = make_algorithm(), make_algorithm(), make_algorithm(seed=9)
    start(tmp_path / "whole", whole, measure, iterations=20, eval_every=4)
    start(tmp_path / "parts", first, measure, iterations=9, save_every=3)
    # Rows beyond the checkpoint, as a crash leaves them, are written again.
    with open(tmp_path / "parts" / "metrics.csv", "a") as file:
        file.write("11,110,9.0,5.0,1.0,1.0,1.0\n")
    start(tmp_path / "parts", second, measure, resume=True, iterations=20, eval_every=4)
    assert torch.equal(weights(whole), weights(second))
    assert whole.rng.bit_generator.state == second.rng.bit_generator.state
    names = {"step/update", "step/env", "train/loss"}
    rows = [
        [{k: row[k] for k in names} for row in without_times(tmp_path / name)]
        for name in ("whole", "parts")
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 20


def test_ctrl_c_finishes_the_iteration_saves_and_can_go_on(tmp_path, make_algorithm):
    whole, broken = make_algorithm(), make_algorithm()
    start(tmp_path / "whole", whole, iterations=8)
    update, calls = broken.update, []

    def interrupted_update():
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        update()

    broken.update = interrupted_update
    with pytest.raises(Interrupted) as caught:
        start(tmp_path / "broken", broken, iterations=8)
    assert caught.value.exit_code == 130
    assert checkpoint.load(tmp_path / "broken").step == 3
    resumed = make_algorithm(seed=5)
    start(tmp_path / "broken", resumed, resume=True, iterations=8)
    assert torch.equal(weights(whole), weights(resumed))
    assert without_times(tmp_path / "whole") == without_times(tmp_path / "broken")


def test_a_second_ctrl_c_ends_at_once(tmp_path, make_algorithm):
    algorithm, before = make_algorithm(), signal.getsignal(signal.SIGINT)

    def update():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    algorithm.update = update
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", algorithm, iterations=8)
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_ends_like_ctrl_c(tmp_path, make_algorithm):
    algorithm = make_algorithm()
    algorithm.update = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        start(tmp_path / "run", algorithm, iterations=8)
    assert caught.value.exit_code == 143
    assert checkpoint.load(tmp_path / "run").step == 1


def test_best_is_by_lower_bound_and_survives_pruning(tmp_path, make_algorithm):
    run = tmp_path / "run"
    start(run, make_algorithm(), outcomes(30, 80, 50, 80, 60), iterations=5, eval_every=1, keep=1)
    assert checkpoint.resolve(run).name == "step_000000002"
    assert checkpoint.load(run).evaluation["success_rate"] == 0.8
    names = [p.name for p in checkpoint.step_folders(run / "checkpoints")]
    assert names == ["step_000000002", "step_000000005"]


def returning(*means):
    """Like ``outcomes``, of a task that is judged by its return: no episode ever succeeds."""
    queue = list(means)

    def run():
        returns = queue.pop(0) + np.arange(100.0) / 100
        return Evaluation(0, np.zeros(100, bool), returns, np.ones(100, np.int64), "return")

    return run


def test_best_and_end_go_by_the_return_where_the_task_does(tmp_path, make_algorithm):
    run = tmp_path / "run"
    run_of = start(run, make_algorithm(), returning(-900, -200, -500), iterations=3, eval_every=1)
    assert (run / "checkpoints" / "best").read_text() == "step_000000002\n"
    assert -200 < run_of.counters.best_lo < -199.5
    ended = tmp_path / "ended"
    start(ended, make_algorithm(), returning(10, 80, 99), iterations=3, eval_every=1, stop_at=80)
    assert read_csv(ended / "metrics.csv")[-1]["step/update"] == 2


def test_best_is_remembered_over_a_resume(tmp_path, make_algorithm):
    run = tmp_path / "run"
    start(run, make_algorithm(), outcomes(80), iterations=2, eval_every=2)
    start(run, make_algorithm(), outcomes(40), resume=True, iterations=4, eval_every=2)
    assert checkpoint.resolve(run).name == "step_000000002"


def test_run_ends_when_the_target_is_reached(tmp_path, make_algorithm):
    run, algorithm = tmp_path / "run", make_algorithm()
    start(run, algorithm, outcomes(50, 99, 0), iterations=9, eval_every=2, stop_at=0.9)
    assert algorithm.env_steps == 40
    assert checkpoint.resolve(run).name == "step_000000004"


def test_rows_and_evaluations_come_when_they_are_due(tmp_path, make_algorithm):
    run = tmp_path / "run"
    config = {"iterations": 7, "log_every": 3, "eval_every": 5, "eval_first": True}
    start(run, make_algorithm(), outcomes(1, 2, 3), **config)
    rows = read_csv(run / "metrics.csv")
    assert [row["step/update"] for row in rows] == [0, 3, 5, 6, 7]
    assert [row["eval/success_rate"] for row in rows if "eval/success_rate" in row] == [
        0.01,
        0.02,
        0.03,
    ]
    assert "train/loss" not in rows[0]
    assert rows[1]["perf/env_steps_per_s"] > 0
    assert sorted(p.name for p in (run / "eval").iterdir()) == [
        f"step_{step:09d}.json" for step in (0, 5, 7)
    ]
