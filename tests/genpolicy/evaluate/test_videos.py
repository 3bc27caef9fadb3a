"""Films: which episodes, how many frames, and a file that a player reads."""

from dataclasses import replace

import imageio.v2 as imageio
import numpy as np
import pytest
from toy_env import SlideEnv, SlidePolicy

from genpolicy.evaluate.evaluator import Evaluation, evaluate
from genpolicy.evaluate.videos import film, record, worth_filming
from genpolicy.spec import GenpolicyError


def render(qpos):
    shade = (255 * np.clip(qpos, 0, 1)).astype(np.uint8)
    return np.broadcast_to(shade[:, :, None, None], (len(qpos), 32, 48, 3))


def test_first_failures_then_first_successes():
    success = np.array([1, 0, 1, 0, 0, 1], bool)
    evaluation = Evaluation(100, success, success * 1.0, np.ones(6, np.int64))
    assert worth_filming(evaluation, 2) == [101, 103, 100, 102]
    assert worth_filming(evaluation, 0) == []


def test_of_return_tasks_the_worst_and_the_best():
    returns = np.array([3.0, -1.0, 7.0, 2.0, 2.0])
    evaluation = Evaluation(10, np.zeros(5, bool), returns, np.ones(5, np.int64), "return")
    assert worth_filming(evaluation, 2) == [11, 13, 12, 10]
    assert worth_filming(evaluation, 4) == [11, 13, 14, 10, 12]  # none twice
    assert worth_filming(evaluation, 0) == []


def test_film_shows_the_episode_that_was_evaluated():
    policy = SlidePolicy()
    evaluation = evaluate(policy, SlideEnv(10), episodes=10, seed0=50)
    for i in range(10):
        states, success, total = record(policy, SlideEnv(1), 50 + i)
        assert len(states["qpos"]) == evaluation.lengths[i]
        assert success == evaluation.success[i]
        assert total == evaluation.returns[i]


def test_mp4_is_playable(tmp_path):
    path = film(SlidePolicy(), SlideEnv(1), 50, tmp_path, render)
    assert path.name in ("seed_50_success.mp4", "seed_50_failure.mp4")
    states, *_ = record(SlidePolicy(), SlideEnv(1), 50)
    played = list(iter(imageio.get_reader(path)))
    assert len(played) == len(states["qpos"])
    assert played[0].shape == (32, 48, 3)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_films_of_return_tasks_are_named_after_it(tmp_path):
    env = SlideEnv(1)
    env.spec = replace(env.spec, score="return")
    assert film(SlidePolicy(), env, 50, tmp_path, render).name in (
        "seed_50_return_1.mp4",
        "seed_50_return_0.mp4",
    )


def test_without_joint_positions_there_is_no_film(tmp_path):
    env = SlideEnv(1)
    env.get_state = dict
    with pytest.raises(GenpolicyError, match="'slide' tells no joint positions"):
        film(SlidePolicy(), env, 50, tmp_path, render)
