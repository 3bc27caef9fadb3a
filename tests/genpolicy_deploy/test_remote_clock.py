"""Stamps of another computer's clock: how old is what has just arrived?"""

import numpy as np
import pytest
from genpolicy_deploy.robots.remote_clock import RemoteClock
from hypothesis import example, given, settings
from hypothesis import strategies as st

MS = 1_000_000


def test_a_message_that_waited_is_known_to_be_old():
    clock, ahead = RemoteClock(), 10**18  # the publisher's clock and ours have nothing in common
    for k in range(100):
        clock.local_ns(ahead + 10 * k * MS, 10 * k * MS + 2 * MS)
    made = clock.local_ns(ahead + 1000 * MS, 1300 * MS)
    assert made == pytest.approx(1002 * MS, abs=0.1 * MS)


@settings(max_examples=20, deadline=None)
@example(drift=150e-6, seed=0, ahead=0)
@example(drift=-150e-6, seed=0, ahead=0)
@given(
    drift=st.floats(-150e-6, 150e-6),
    seed=st.integers(0, 2**32 - 1),
    ahead=st.integers(-(10**15), 10**18),
)
def test_ages_stay_right_while_the_clocks_drift_apart(drift, seed, ahead):
    rng, clock = np.random.default_rng(seed), RemoteClock()
    for k in range(1, 500):  # 5 min
        made = k * 600 * MS
        delay = int(rng.choice([1, 1, 1, 5, 40]) * MS)
        stamp = ahead + made + int(made * drift)
        known = clock.local_ns(stamp, made + delay)
        assert known <= made + delay
        if k > 50:  # 1 ms is the quickest; the fastest message has nothing else to be compared to
            assert abs(known - made - 1 * MS) < 3 * MS


def test_remote_clock_takes_the_quickest_package_and_follows_drift():
    clock, rng = RemoteClock(), np.random.default_rng(0)
    drift = 1.0 + 1e-4
    worst = 0.0
    for tick in range(60_000):  # ten minutes at 100 Hz
        made_s = 0.01 * tick
        arrived_ns = round((made_s + 0.001 + rng.exponential(0.004)) * 1e9)
        error = clock.local_ns(round((made_s / drift + 50.0) * 1e9), arrived_ns) / 1e9 - made_s
        worst = max(worst, abs(error)) if tick > 100 else 0.0
    assert worst < 0.004  # 0.06 s if the difference never gave way
