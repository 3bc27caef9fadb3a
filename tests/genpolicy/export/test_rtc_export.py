"""Real-time chunking in the exported graph: one file for every delay, and the plain policy too."""

import numpy as np
import pytest
import torch
from genpolicy_deploy.controller import Controller
from genpolicy_deploy.handover import soft_weights
from test_onnx_export import SAMPLERS, fitted, make_spec

from genpolicy.export.onnx import PARITY_TOLERANCE, export, random_inputs
from genpolicy.policies.diffusion import DiffusionPolicy
from genpolicy.policies.flow import FlowConfig, FlowPolicy
from genpolicy.spec import GenpolicyError
from genpolicy.values.critic import ValueConfig, ValueFunction

SMALL = {"hidden": (16, 16, 16), "time_dim": 8, "sample_steps": 2}
SPEC = make_spec(exec_steps=2)  # of 4


def make(max_delay=0, **config):
    torch.manual_seed(0)
    policy = FlowPolicy(SPEC, FlowConfig(**SMALL | config, max_delay=max_delay))
    policy.normalizer.load_state_dict(fitted(SPEC.task))
    return policy.eval()


@pytest.fixture(scope="module")
def value():
    value = ValueFunction(ValueConfig(hidden=(16,), members=2), SPEC)
    value.normalizer.load_state_dict(fitted(SPEC.task))
    return value


@pytest.fixture(
    scope="module", params=["prefix", "guided", "heun+prefix", "heun+guided", "prefix+value"]
)
def exported(request, value, tmp_path_factory):
    words = request.param.split("+")
    method = next(word for word in words if word in ("prefix", "guided"))
    solver = "heun" if "heun" in words else "euler"
    policy = make(2 if method == "prefix" else 0, solver=solver)
    scorer = value if "value" in words else None
    path = tmp_path_factory.mktemp("rtc") / "controller.onnx"
    contract = export(policy, scorer, path, num_samples=3 if scorer else 1, rtc=method)
    return policy, scorer, path, contract


def drawn(seed):
    rng = np.random.default_rng(seed)
    previous = rng.uniform(-1, 0.5, (4, 3)).astype(np.float32)
    obs = {"pos": rng.normal(2, 3, (2, 3)), "grip": rng.normal(2, 3, (2, 1))}
    return {k: v.astype(np.float32) for k, v in obs.items()}, previous


@pytest.mark.parametrize(("delay", "overlap"), [(0, 3), (1, 3), (2, 2), (2, 4)])
def test_one_graph_goes_on_from_any_delay_as_torch_does(exported, delay, overlap):
    policy, _, path, contract = exported
    controller = Controller(path, num_samples=1)
    obs, previous = drawn(delay)
    weights = np.zeros(4, np.float32)
    soft_weights(delay, overlap, weights)
    chunk = controller.act(obs, previous=previous, weights=weights)
    noise = {k: torch.from_numpy(v) for k, v in controller.noise().items()}
    with torch.no_grad():
        expected = policy.go_on(
            {k: torch.from_numpy(v[None]) for k, v in obs.items()},
            torch.from_numpy(previous[None]),
            torch.from_numpy(weights[None]),
            method=contract.rtc.method,
            noise=noise,
        )
    np.testing.assert_allclose(chunk.actions, expected[0, 0], atol=PARITY_TOLERANCE)
    if contract.rtc.method == "prefix":  # what has been executed by then stands in the chunk
        np.testing.assert_allclose(chunk.actions[:delay], previous[:delay], atol=1e-6)


def test_the_old_chunk_changes_the_new_one_and_samples_are_chosen_among_those_that_go_on(exported):
    _, scorer, path, _ = exported
    controller = Controller(path)
    obs, previous = drawn(5)
    weights = np.array([1, 0.5, 0, 0], np.float32)
    chunk = controller.act(obs, previous=previous, weights=weights)
    noise = controller.noise()
    stacked = {k: v[None] for k, v in obs.items()}
    given = {"prev_actions": previous, "prev_weights": weights}
    actions, scores = (
        None if a is None else a.copy() for a in controller.predict(stacked, noise | given)
    )
    best = 0 if scorer is None else int(np.argmax(scores))
    np.testing.assert_array_equal(chunk.actions, actions[best])
    plain, _ = controller.predict(stacked, noise)
    assert np.abs(plain - actions).max() > 1e-3


def test_without_an_old_chunk_the_graph_is_the_plain_policy_bit_for_bit(exported, tmp_path):
    policy, scorer, path, _ = exported
    plain = tmp_path / "plain.onnx"
    export(policy, scorer, plain, num_samples=3 if scorer else 1, rtc="none")
    with_rtc, without = Controller(path), Controller(plain)
    zeros = {"previous": np.zeros((4, 3), np.float32), "weights": np.zeros(4, np.float32)}
    garbage = {"previous": np.full((4, 3), 0.7, np.float32), "weights": np.zeros(4, np.float32)}
    for seed in range(5):
        obs, _ = drawn(seed)
        expected = without.act(obs)
        for previous in ({}, zeros, garbage):
            with_rtc.counter = expected.counter
            got = with_rtc.act(obs, **previous)
            np.testing.assert_array_equal(got.actions, expected.actions)
            assert got.index == expected.index


def test_plain_controllers_refuse_an_old_chunk(tmp_path):
    path = tmp_path / "plain.onnx"
    export(make(), None, path, rtc="none")
    obs, previous = drawn(0)
    controller = Controller(path)
    controller.act(obs, previous=previous, weights=np.zeros(4, np.float32))
    with pytest.raises(GenpolicyError, match="without real-time chunking"):
        controller.act(obs, previous=previous, weights=np.ones(4, np.float32))


def test_golden_pair_and_contract_hold_the_old_chunk(exported):
    *_, path, contract = exported
    golden = Controller(path).contract.golden.inputs
    assert golden["prev_actions"].shape == (1, 4, 3) and golden["prev_weights"].shape == (1, 4)
    assert contract.rtc.max_delay == (2 if contract.rtc.method == "prefix" else 3)


def test_auto_takes_what_the_policy_can(tmp_path):
    for name, policy, method in (
        ("trained", make(2), "prefix"),
        ("flow", make(), "guided"),
        ("diffusion", DiffusionPolicy(SPEC, SAMPLERS["ddim"]), None),
        ("whole", FlowPolicy(make_spec(exec_steps=4), FlowConfig(**SMALL)), None),
    ):
        contract = export(policy, None, tmp_path / f"{name}.onnx")
        assert (contract.rtc.method if contract.rtc else None) == method
        assert Controller(tmp_path / f"{name}.onnx").contract.rtc == contract.rtc
        assert (
            random_inputs(policy, 1, np.random.default_rng(0)).keys()
            <= contract.golden.inputs.keys()
        )


@pytest.mark.parametrize(
    ("policy", "rtc", "message"),
    [
        (lambda: DiffusionPolicy(SPEC, SAMPLERS["ddim"]), "guided", "only a flow policy"),
        (lambda: make(), "prefix", "not trained for it"),
        (lambda: make(), "soft", "choose one of"),
        (
            lambda: FlowPolicy(make_spec(exec_steps=4), FlowConfig(**SMALL)),
            "guided",
            "exec_steps below chunk",
        ),
    ],
)
def test_what_cannot_go_on_is_refused_in_words(policy, rtc, message, tmp_path):
    with pytest.raises(GenpolicyError, match=message):
        export(policy(), None, tmp_path / "controller.onnx", rtc=rtc)
    assert list(tmp_path.iterdir()) == []
