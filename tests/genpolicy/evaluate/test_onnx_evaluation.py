"""A checkpoint and its export, measured by the same evaluator, do the same."""

import numpy as np
import pytest
import torch
from toy_env import SPEC, SlideEnv

from genpolicy.evaluate.evaluator import evaluate
from genpolicy.export.onnx import export
from genpolicy.policies import build_policy
from genpolicy.runs.load import OnnxPolicy, load
from genpolicy.spec import GenpolicyError
from genpolicy.values import build_value
from genpolicy.values.rerank import RerankedPolicy


def make_policy(eta):
    torch.manual_seed(0)
    config = {"name": "diffusion", "hidden": [32, 32, 32], "train_steps": 4, "sample_steps": 4}
    return build_policy({**config, "eta": eta}, SPEC).eval()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A deterministic policy and its export."""
    path = tmp_path_factory.mktemp("plain") / "c.onnx"
    policy = make_policy(eta=0.0)
    export(policy, None, path)
    return policy, path


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A policy that draws noise at every step, a value function, and their export."""
    path = tmp_path_factory.mktemp("scored") / "c.onnx"
    policy = make_policy(eta=1.0)
    value = build_value({"name": "q_ensemble", "hidden": [16], "members": 2}, SPEC).eval()
    export(policy, value, path, num_samples=5)
    return policy, value, path


def measure(policy, num_envs=40):
    return evaluate(policy, SlideEnv(num_envs), episodes=40, seed0=1000)


def assert_same(ours, theirs):
    np.testing.assert_array_equal(ours.success, theirs.success)
    np.testing.assert_array_equal(ours.lengths, theirs.lengths)


def test_same_successes(plain):
    policy, path = plain
    ours = measure(policy)
    assert 0 < ours.success.sum() < 40
    assert_same(ours, measure(load(path)))


def test_same_successes_with_step_noise(scored):
    policy, _, path = scored
    assert_same(measure(policy), measure(OnnxPolicy(path, num_samples=1)))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_same_successes_when_re_ranked(scored, temperature):
    policy, value, path = scored
    ours = measure(RerankedPolicy(policy, value, 5, temperature))
    assert_same(ours, measure(OnnxPolicy(path, temperature=temperature)))
    assert (ours.lengths != measure(policy).lengths).any()  # the choice does change what is done


def test_samples_without_a_value_function_are_refused(plain):
    with pytest.raises(GenpolicyError, match="has no value function"):
        OnnxPolicy(plain[1], num_samples=3)


def test_act_has_the_shape_that_is_executed(plain):
    assert OnnxPolicy(plain[1]).act(SlideEnv(3).reset(0)).shape == (3, 2, 1)
