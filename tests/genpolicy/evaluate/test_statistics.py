"""Intervals and paired tests against closed forms and published numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genpolicy.evaluate.statistics import bootstrap, compare, mcnemar, wilson

Z = 1.959963984540054


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_bounds_solve_the_score_equation(counts):
    """At each bound p, |p̂ − p| = z·sqrt(p(1−p)/n) (or the bound is an end of [0, 1])."""
    k, n = counts
    for p in wilson(k, n):
        assert 0.0 <= p <= 1.0
        assert abs(k / n - p) == pytest.approx(Z * math.sqrt(p * (1 - p) / n), abs=1e-9)


@pytest.mark.parametrize(
    ("k", "n", "lo", "hi"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (294, 300, 0.9571, 0.9908)],
)
def test_wilson_known_values(k, n, lo, hi):
    assert wilson(k, n) == pytest.approx((lo, hi), abs=5e-5)


def test_wilson_refuses_impossible_counts():
    with pytest.raises(ValueError, match="3 successes in 2"):
        wilson(3, 2)


def test_mcnemar_is_the_exact_binomial_test():
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(9, 1) == mcnemar(1, 9)
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 0) == 1.0


def test_compare_counts_pairs():
    first = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 1], bool)
    second = np.array([1, 0, 1, 1, 1, 1, 1, 1, 0, 1], bool)
    test = compare(first, second)
    assert (test.gained, test.lost) == (6, 1)
    assert test.difference == pytest.approx(0.5)
    assert test.lo < 0.5 < test.hi
    assert test.p_value == pytest.approx(mcnemar(6, 1))


def test_compare_needs_the_same_episodes():
    with pytest.raises(ValueError, match="differ in number"):
        compare(np.ones(3, bool), np.ones(4, bool))


def test_bootstrap_in_bounded_memory_is_the_same_bootstrap(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)
    whole = bootstrap(values)
    monkeypatch.setattr("genpolicy.evaluate.statistics.PICKS_AT_A_TIME", 50 * 999)
    assert bootstrap(values) == whole


def test_bootstrap_agrees_with_the_normal_interval_of_a_mean():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=2000)
    half = Z * values.std() / math.sqrt(len(values))
    lo, hi = bootstrap(values)
    assert lo == pytest.approx(values.mean() - half, abs=0.01)
    assert hi == pytest.approx(values.mean() + half, abs=0.01)
