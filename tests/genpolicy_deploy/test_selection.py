"""select(): what may never be chosen, and its limits."""

from __future__ import annotations

import numpy as np
from genpolicy_deploy.selection import select
from hypothesis import given
from hypothesis import strategies as st

anything = st.floats(allow_nan=True, allow_infinity=True, width=32)
scores_of_any_kind = st.lists(anything, min_size=1, max_size=12).map(np.array)
temperatures = st.floats(0.0, 1e6)


def draws(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n, dtype=np.float32)


@given(scores_of_any_kind, temperatures, st.integers(0, 2**32))
def test_scores_that_are_not_finite_never_win(scores, temperature, seed):
    index = select(scores, temperature, draws(seed, len(scores)))
    assert 0 <= index < len(scores)
    if np.isfinite(scores).any():
        assert np.isfinite(scores[index])
    else:
        assert index == 0


@given(anything, temperatures)
def test_one_sample_is_the_base_policy(score, temperature):
    assert select(np.array([score]), temperature, draws(0, 1)) == 0


@given(scores_of_any_kind)
def test_temperature_zero_is_argmax(scores):
    finite = np.where(np.isfinite(scores), scores, -np.inf)
    assert select(scores, 0.0) == int(np.argmax(finite))


def test_cold_softmax_approaches_argmax_and_hot_softmax_is_uniform():
    scores = np.array([0.0, 3.0, 1.0, 2.0])
    assert {select(scores, 1e-3, draws(s, 4)) for s in range(100)} == {1}
    counts = np.bincount([select(scores, 1e6, draws(s, 4)) for s in range(4000)], minlength=4)
    assert np.abs(counts / 4000 - 0.25).max() < 0.04


def test_softmax_draws_by_standardised_score_whatever_the_scale_of_q():
    scores = np.array([1.0, 2.0, 4.0])
    z = (scores - scores.mean()) / scores.std()
    want = np.exp(z) / np.exp(z).sum()
    for scale, shift in ((1.0, 0.0), (1e-3, 5.0), (1e4, -7.0)):
        drawn = [select(scores * scale + shift, 1.0, draws(s, 3)) for s in range(6000)]
        assert np.abs(np.bincount(drawn, minlength=3) / 6000 - want).max() < 0.03
