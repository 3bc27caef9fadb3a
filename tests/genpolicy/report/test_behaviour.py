"""Samples in one state and scores of first chunks, against what is known of a toy policy."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_env import SPEC, TASK, SlideEnv

from genpolicy.evaluate.evaluator import EpisodeNoise, evaluate
from genpolicy.report.behaviour import SAMPLES, auc, first_chunks, first_scores
from genpolicy.spec import ActionSpec


def test_auc_is_one_when_all_successes_score_higher():
    assert auc(np.array([3.0, 2.0]), np.array([1.0, 0.0])) == 1.0
    assert auc(np.array([0.0]), np.array([1.0, 2.0])) == 0.0
    assert auc(np.array([1.0]), np.array([1.0])) == 0.5
    assert auc(np.array([]), np.array([1.0])) is None


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=8),
    st.lists(st.integers(-5, 5), min_size=1, max_size=8),
)
def test_auc_of_exchanged_groups_is_the_complement(a, b):
    a, b = np.array(a, float), np.array(b, float)
    assert auc(a, b) + auc(b, a) == pytest.approx(1.0)


class Sideways:
    """Three axes; goes left or right of zero with the sign of (draw − start)."""

    spec = replace(
        SPEC,
        task=replace(
            TASK,
            action=ActionSpec(("dx", "dy", "dz"), ("m",) * 3, (-1.0,) * 3, (1.0,) * 3),
            control={"position_scale": 0.05},
        ),
    )

    def __init__(self, scale=1.0):
        self.scale = scale

    def sample(self, obs, *, num_samples):
        start = obs["start"][:, :, 0]  # [B, 1]
        draws = self.rng.uniform(size=num_samples)
        side = torch.sign(torch.from_numpy(draws) - start)  # [B, N]
        chunks = torch.zeros(len(start), num_samples, 3, 3)
        chunks[..., 1] = self.scale * side[..., None]
        return chunks


def test_the_most_undecided_state_is_shown_with_the_same_draws():
    env = SlideEnv(10)
    found = first_chunks({"before": Sideways(), "after": Sideways(0.5)}, env, 40)
    env.reset(40)
    # The share of draws above the start is nearest to a half where the start is.
    draws = np.random.default_rng(0).uniform(size=(10, SAMPLES))[0]
    share = [(draws > start).mean() for start in env.start]
    assert abs(share[found["seed"] - 40] - 0.5) == min(abs(s - 0.5) for s in share)
    before, after = found["paths"]["before"], found["paths"]["after"]
    assert before.shape == (SAMPLES, 4, 3)
    assert (before[:, 0] == 0).all()
    np.testing.assert_allclose(np.abs(before[:, -1, 1]), 3 * 5.0)  # three steps of 5 cm
    np.testing.assert_allclose(after, 0.5 * before)


class Noisy:
    """One action per draw; its episodes succeed where the first draw is negative enough."""

    spec = SPEC

    def noise_spec(self, batch, num_samples=1):
        return {"noise": (batch, num_samples, 3, 1)}

    def sample(self, obs, *, noise=None, num_samples=1, deterministic=True):
        return noise["noise"].clamp(-1, 1)


def test_scores_are_those_of_the_chunks_that_were_executed():
    policy = Noisy()
    evaluation = evaluate(policy, SlideEnv(4), episodes=12, seed0=30)
    value = SimpleNamespace(score=lambda obs, chunks: -chunks[:, :, 0, 0])
    found = first_scores(policy, value, SlideEnv(12), evaluation)
    draws = [
        EpisodeNoise(policy).draw([np.random.default_rng(30 + i)])["noise"][0, 0, 0, 0].clamp(-1, 1)
        for i in range(12)
    ]
    np.testing.assert_array_equal(found["scores"], -np.array(draws, np.float64))
    np.testing.assert_array_equal(found["success"], evaluation.success)
    assert 0 < evaluation.success.mean() < 1
    assert found["auc"] == auc(
        found["scores"][evaluation.success], found["scores"][~evaluation.success]
    )
