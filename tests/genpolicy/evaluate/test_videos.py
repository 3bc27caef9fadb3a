"""Films: which episodes, how many frames, and a file that a player reads."""

import imageio.v2 as imageio
import numpy as np
from toy_env import SlideEnv, SlidePolicy

from genpolicy.evaluate.evaluator import Evaluation, evaluate
from genpolicy.evaluate.videos import film, record, worth_filming


def render(states):
    shade = (255 * np.clip(states, 0, 1)).astype(np.uint8)
    return np.broadcast_to(shade[:, :, None, None], (len(states), 32, 48, 3))


def test_first_failures_then_first_successes():
    success = np.array([1, 0, 1, 0, 0, 1], bool)
    evaluation = Evaluation(100, success, success * 1.0, np.ones(6, np.int64))
    assert worth_filming(evaluation, 2) == [101, 103, 100, 102]
    assert worth_filming(evaluation, 0) == []


def test_film_shows_the_episode_that_was_evaluated():
    policy = SlidePolicy()
    evaluation = evaluate(policy, SlideEnv(10), episodes=10, seed0=50)
    for i in range(10):
        states, success = record(policy, SlideEnv(1), 50 + i)
        assert len(states) == evaluation.lengths[i]
        assert success == evaluation.success[i]


def test_mp4_is_playable(tmp_path):
    path = film(SlidePolicy(), SlideEnv(1), 50, tmp_path, render)
    assert path.name in ("seed_50_success.mp4", "seed_50_failure.mp4")
    states, _ = record(SlidePolicy(), SlideEnv(1), 50)
    played = list(iter(imageio.get_reader(path)))
    assert len(played) == len(states)
    assert played[0].shape == (32, 48, 3)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
