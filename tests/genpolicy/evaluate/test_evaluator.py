"""The evaluator: results depend on policy and seeds, not on how many environments run."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_env import SPEC, TASK, BigStride, SlideEnv, SlidePolicy

from genpolicy.evaluate.evaluator import EpisodeNoise, Evaluation, check_task, evaluate
from genpolicy.evaluate.statistics import bootstrap, wilson
from genpolicy.spec import ActionSpec, Feature, GenpolicyError


def run(num_envs, episodes=50, policy=None, seed0=1000):
    return evaluate(policy or SlidePolicy(), SlideEnv(num_envs), episodes=episodes, seed0=seed0)


def test_result_does_not_depend_on_num_envs():
    few, many = run(7), run(50)
    assert 0 < few.success.sum() < 50  # otherwise equal results would say nothing
    np.testing.assert_array_equal(few.success, many.success)
    np.testing.assert_array_equal(few.lengths, many.lengths)
    np.testing.assert_array_equal(few.returns, many.returns)


def test_episodes_are_ordered_by_seed():
    whole = run(8, episodes=20)
    tail = run(3, episodes=5, seed0=1015)
    np.testing.assert_array_equal(whole.lengths[15:], tail.lengths)


def test_finished_environments_are_not_stepped():
    env = SlideEnv(50)
    evaluation = evaluate(SlidePolicy(), env, episodes=20, seed0=0)
    assert env.executed == evaluation.lengths.sum()


def test_environments_without_a_mask_give_the_same_result():
    class Plain(SlideEnv):
        def step(self, actions):
            return super().step(actions)

    masked = run(50)
    plain = evaluate(SlidePolicy(), Plain(50), episodes=50, seed0=1000)
    np.testing.assert_array_equal(masked.success, plain.success)
    np.testing.assert_array_equal(masked.lengths, plain.lengths)


def test_noise_of_an_episode_is_its_own():
    noise = EpisodeNoise(SlidePolicy())
    together = noise.draw([np.random.default_rng(i) for i in (3, 4)])
    alone = noise.draw([np.random.default_rng(4)])
    assert together["step_noise"].shape == (2, 2, 1, 3, 1)
    torch.testing.assert_close(together["noise"][1:], alone["noise"], rtol=0, atol=0)
    torch.testing.assert_close(together["step_noise"][:, 1:], alone["step_noise"], rtol=0, atol=0)


def test_policy_is_evaluated_in_evaluation_mode_and_given_back_as_it_was():
    policy = BigStride().train()
    evaluation = run(10, episodes=10, policy=policy)
    assert evaluation.success.all()
    assert policy.modes and not any(policy.modes)
    assert policy.training


def test_evaluation_reports():
    evaluation = Evaluation(1000, np.array([1, 0, 1, 1], bool), np.ones(4), np.full(4, 7))
    report = evaluation.to_dict()
    assert report["success_rate"] == 0.75
    assert report["episodes"] == 4
    assert 0.3 < report["success_lo"] < 0.75 < report["success_hi"] < 0.96
    assert evaluation.metrics()["eval/success_lo"] == report["success_lo"]
    again = Evaluation.from_dict(report)
    np.testing.assert_array_equal(again.success, evaluation.success)
    assert again.seed0 == 1000


def test_a_task_is_judged_by_its_score():
    """The interval of the mean return is the bootstrap's; by it goes what is best."""
    returns = np.array([1.0, 2.0, 6.0, 3.0, -40.0, 8.0])
    for score, lo in (("return", bootstrap(returns)[0]), ("success", wilson(3, 6)[0])):
        success = np.arange(6) % 2 == 0
        evaluation = Evaluation(0, success, returns, np.ones(6, np.int64), score)
        assert evaluation.score_lo == lo
        assert evaluation.summary().startswith(score)
        report = evaluation.to_dict()
        assert Evaluation.from_dict(report).score_lo == lo
        assert (report["return_lo"], report["return_hi"]) == bootstrap(returns)
        assert report["return_lo"] < report["return_mean"] < report["return_hi"]
        assert evaluation.metrics()["eval/return_lo"] == report["return_lo"]
        assert evaluation.metrics()["eval/return_hi"] == report["return_hi"]
    env = SlideEnv(4)
    env.spec = replace(TASK, score="return")
    assert evaluate(SlidePolicy(), env, episodes=4, seed0=0).score == "return"


def test_files_from_before_there_was_a_score_load():
    report = Evaluation(5, np.ones(3, bool), np.ones(3), np.ones(3, np.int64)).to_dict()
    old = {k: v for k, v in report.items() if k not in ("score", "return_lo", "return_hi")}
    assert Evaluation.from_dict(old).to_dict() == report


def change_task(**changes):
    env = SlideEnv(1)
    env.spec = replace(TASK, **changes)
    return env


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"task": "lift"}, "task"),
        ({"control_hz": 20.0}, "control_hz"),
        ({"control_mode": "torque"}, "control_mode"),
        ({"observations": TASK.observations[:1]}, "start"),
        ({"observations": (*TASK.observations[:1], Feature("start", (2,)))}, "start"),
        ({"action": ActionSpec(("dx",), ("m",), (-2.0,), (2.0,))}, "action"),
    ],
)
def test_policy_of_another_task_is_refused(changes, named):
    with pytest.raises(GenpolicyError, match=named):
        evaluate(SlidePolicy(), change_task(**changes), episodes=1, seed0=0)


def test_a_policy_may_use_fewer_observations_than_the_task_has():
    more = change_task(observations=(*TASK.observations, Feature("clock", (1,))))
    check_task(SPEC, more)


def test_no_episodes_are_refused():
    with pytest.raises(GenpolicyError, match="episodes=0"):
        run(2, episodes=0)
