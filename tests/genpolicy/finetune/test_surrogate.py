"""The three surrogates: closed forms, and where their gradients go."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genpolicy.finetune.surrogate import SURROGATES, aspo, clip, spo

WIDTH = torch.tensor(0.1)
ratios = st.floats(0.2, 3.0)
advantages = st.floats(-5.0, 5.0).filter(lambda a: abs(a) > 1e-3)


def slope(surrogate, ratio, advantage):
    r = torch.tensor(ratio, requires_grad=True)
    surrogate(r, torch.tensor(advantage), WIDTH).backward()
    return r.grad.item()


def test_clip_closed_form_and_where_its_gradient_stops():
    ratio = torch.tensor([1.5, 0.5, 1.05])
    advantage = torch.tensor([1.0, -1.0, 2.0])
    assert clip(ratio, advantage, WIDTH).tolist() == pytest.approx([1.1, -0.9, 2.1])
    assert [slope(clip, r, a) for r, a in ((1.5, 1.0), (0.5, -1.0), (1.5, -1.0))] == [0, 0, -1]


def test_spo_closed_form():
    value = spo(torch.tensor(1.2), torch.tensor(-2.0), WIDTH)
    assert value.item() == pytest.approx(-2.4 - 2.0 / 0.2 * 0.04, rel=1e-5)


@given(advantages)
def test_all_have_the_gradient_of_the_policy_at_ratio_one(advantage):
    for surrogate in SURROGATES.values():
        assert slope(surrogate, 1.0, advantage) == pytest.approx(advantage, rel=1e-5)


@given(advantages)
def test_spo_is_highest_where_clip_stops(advantage):
    best = 1.0 + (0.1 if advantage > 0 else -0.1)
    assert slope(spo, best, advantage) == pytest.approx(0.0, abs=1e-5)
    assert slope(spo, best + 0.3, advantage) < 0 < slope(spo, best - 0.1, advantage)


@given(ratios, advantages)
def test_aspo_is_clip_for_good_actions_and_spo_for_bad_ones(ratio, advantage):
    r, a = torch.tensor(ratio), torch.tensor(advantage)
    assert aspo(r, a, WIDTH) == (clip if advantage > 0 else spo)(r, a, WIDTH)
