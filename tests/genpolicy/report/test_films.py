"""Before beside after: only rescued episodes, equal lengths, the outcome in colour."""

import imageio.v2 as imageio
import numpy as np
import pytest
from toy_env import BigStride, SlideEnv, SlidePolicy

from genpolicy.evaluate.evaluator import evaluate
from genpolicy.report.films import BORDER, FAILURE, RUNNING, SUCCESS, beside, film_rescues


class Stay(SlidePolicy):
    """Never arrives."""

    def sample(self, obs, *, noise=None, num_samples=1, deterministic=True):
        return super().sample(obs, noise=noise).clamp(0, 0)


def draw(qpos):
    shade = (255 * np.clip(qpos, 0, 1)).astype(np.uint8)
    return np.broadcast_to(shade[:, :, None, None], (len(qpos), 24, 48, 3))


@pytest.fixture
def evaluations():
    return tuple(
        evaluate(policy, SlideEnv(8), episodes=8, seed0=70) for policy in (Stay(), BigStride())
    )


def test_shorter_film_waits_and_bars_tell_the_outcome():
    left, right = np.full((9, 4, 6, 3), 10, np.uint8), np.full((5, 4, 6, 3), 20, np.uint8)
    film = beside(left, right, hold=3)
    assert film.shape == (12, 4 + BORDER, 12, 3)
    bars = film[:, -1]
    assert (bars[:9, :6] == RUNNING).all() and (bars[9:, :6] == FAILURE).all()
    assert (bars[:5, 6:] == RUNNING).all() and (bars[5:, 6:] == SUCCESS).all()
    assert (film[-1, :4, :6] == 10).all() and (film[-1, :4, 6:] == 20).all()


def test_rescued_episodes_are_filmed_in_order(tmp_path, evaluations):
    path = tmp_path / "film.mp4"
    seeds = film_rescues(Stay(), BigStride(), evaluations, SlideEnv(1), draw, path, count=2)
    assert seeds == [70, 71]
    played = list(iter(imageio.get_reader(path)))  # len() of a film is infinite
    steps = sum(int(evaluations[0].lengths[i]) for i in range(2))  # staying takes all the time
    assert len(played) == steps + 2 * round(0.8 * SlideEnv.spec.control_hz)
    assert played[0].shape == (24 + BORDER, 96, 3)


def test_without_a_rescue_there_is_no_film(tmp_path, evaluations):
    path = tmp_path / "film.mp4"
    assert film_rescues(BigStride(), Stay(), evaluations[::-1], SlideEnv(1), draw, path) == []
    assert not path.exists()


def test_an_episode_that_ends_otherwise_when_alone_is_left_out(tmp_path, evaluations):
    claimed = evaluations[1], evaluations[1]
    claimed[0].success[:] = False
    fickle = evaluate(BigStride(), SlideEnv(8), episodes=8, seed0=70)
    seeds = film_rescues(
        BigStride(), BigStride(), (claimed[0], fickle), SlideEnv(1), draw, tmp_path / "film.mp4"
    )
    assert seeds == []
