"""Running statistics equal those of all data at once, however the data arrived."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from genpolicy.finetune.moments import RunningMoments


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.floats(-1e4, 1e4),
    st.floats(1e-2, 1e2),
    st.integers(0, 2**32 - 1),
)
def test_any_split_gives_the_moments_of_all_data(sizes, offset, scale, seed):
    rng = np.random.default_rng(seed)
    batches = [offset + scale * rng.standard_normal((n, 3)) for n in sizes]
    moments = RunningMoments(3)
    for batch in batches:
        moments.update(batch)
    everything = np.concatenate(batches)
    assert moments.count == len(everything)
    np.testing.assert_allclose(moments.mean, everything.mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moments.std, everything.std(0), rtol=1e-6, atol=1e-6)


def test_the_estimate_converges_and_does_not_shrink():
    rng, moments = np.random.default_rng(0), RunningMoments(1)
    for _ in range(200):
        moments.update(rng.normal(5.0, 2.0, (50, 1)))
    np.testing.assert_allclose(moments.std, 2.0, rtol=0.03)


def test_resume_continues():
    rng = np.random.default_rng(0)
    one, other = RunningMoments(2), RunningMoments(2)
    one.update(rng.normal(size=(5, 2)))
    other.load_state_dict(one.state_dict())
    more = rng.normal(size=(7, 2))
    one.update(more), other.update(more)
    np.testing.assert_array_equal(one.m2, other.m2)
