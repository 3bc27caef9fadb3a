"""The contract, the graph behind it and the controller: round trip, refusals, determinism."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from genpolicy_deploy.contract import Contract, symbolic_shapes
from genpolicy_deploy.controller import Controller
from genpolicy_deploy.graph import Graph

from genpolicy.spec import GenpolicyError


def edited(**changes):
    return lambda text: json.dumps(json.loads(text) | changes)


def test_importing_every_module_loads_no_torch_and_no_simulator():
    code = (
        "import sys, pkgutil, importlib, genpolicy_deploy as g\n"
        "for m in pkgutil.walk_packages(g.__path__, 'genpolicy_deploy.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
        "bad = {'torch', 'mujoco', 'robosuite', 'genpolicy_sim', 'onnx'} & set(sys.modules)\n"
        "sys.exit(f'loaded {bad}' if bad else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_contract_round_trips_exactly(any_controller_path):
    contract = Graph(any_controller_path).contract
    again = Contract.from_json(contract.to_json())
    assert again.spec == contract.spec
    assert again.noise == contract.noise
    for name, array in contract.golden.inputs.items():
        np.testing.assert_array_equal(again.golden.inputs[name], array)


def test_symbolic_shapes_name_the_sample_axis():
    def noise_spec(batch, n):
        return {"noise": (batch, n, 8, 7), "step_noise": (9, batch, n, 8, 7)}

    assert symbolic_shapes(noise_spec) == {
        "noise": (1, "N", 8, 7),
        "step_noise": (9, 1, "N", 8, 7),
    }


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: None, "no 'genpolicy.contract' metadata"),
        (edited(version=3), "newer"),
        (edited(version="one"), "no valid version"),
        (lambda text: text[:-5], "not JSON"),
        (lambda text: json.dumps([1]), "not a JSON object"),
        (edited(extra=1), "unknown entry 'extra'"),
        (lambda text: json.dumps({**json.loads(text), "spec": {}}), "malformed contract"),
        (edited(noise={"noise": [1, 3, 8, 7]}), "exactly one 'N'"),
        (edited(noise={"noise": [1, "N", 9, 7]}), "golden pair does not fit|contract says"),
        (edited(num_samples=0), "num_samples"),
        (edited(temperature=-1.0), "temperature"),
        (edited(has_scores=False), "golden pair must hold the outputs"),
    ],
)
def test_foreign_or_damaged_contracts_are_refused(build_controller, tmp_path, edit, message):
    path = build_controller(tmp_path / "bad.onnx", edit=edit)
    with pytest.raises(GenpolicyError, match=message) as caught:
        Controller(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("entry", ["actions", "scores"])
def test_corrupted_golden_pair_is_refused(build_controller, tmp_path, entry):
    def corrupt(text):
        contract = Contract.from_json(text)
        outputs = dict(contract.golden.outputs)
        outputs[entry] = outputs[entry] + np.float32(0.01)
        return replace(contract, golden=replace(contract.golden, outputs=outputs)).to_json()

    path = build_controller(tmp_path / "bad.onnx", edit=corrupt)
    with pytest.raises(GenpolicyError, match=f"golden {entry}"):
        Controller(path)


def test_files_that_are_not_onnx_are_refused(tmp_path, controller_path):
    with pytest.raises(GenpolicyError, match="no such file"):
        Controller(tmp_path / "missing.onnx")
    half = tmp_path / "half.onnx"
    half.write_bytes(controller_path.read_bytes()[:300])
    with pytest.raises(GenpolicyError, match="not an ONNX file"):
        Controller(half)


def test_fixed_sample_axis_fits_only_its_count(build_controller, tmp_path):
    path = build_controller(tmp_path / "fixed.onnx", fixed=True, samples=3)
    assert Controller(path).num_samples == 3
    with pytest.raises(GenpolicyError, match="exported for 3 samples"):
        Controller(path, num_samples=4)


def test_many_samples_need_a_value_function(build_controller, tmp_path):
    path = build_controller(tmp_path / "plain.onnx", scores=False)
    assert Controller(path).num_samples == 1
    with pytest.raises(GenpolicyError, match="value function"):
        Controller(path, num_samples=2)


def test_replay_is_exact_and_one_sample_is_the_base_policy(any_controller_path, observation):
    many, again, one = (Controller(any_controller_path, n, seed=3) for n in (10, 10, 1))
    for t in range(3):
        a, b = many.act(observation, t), again.act(observation, t)
        np.testing.assert_array_equal(a.actions, b.actions)
        base = one.act(observation, t)
        assert base.index == 0
        candidates, scores = many.predict(
            {k: v[None, None] for k, v in observation.items()}, many.noise()
        )
        # The first of ten samples is the one that the base policy draws with the same seed.
        np.testing.assert_allclose(base.actions, candidates[0], atol=1e-6)
        assert a.index == int(np.argmax(scores))
    many.reset(3)
    np.testing.assert_array_equal(
        many.act(observation).actions,
        Controller(any_controller_path, 10, seed=3).act(observation).actions,
    )


def test_history_stacks_control_steps(build_controller, tmp_path, observation):
    path = build_controller(tmp_path / "two.onnx", obs_steps=2)
    first, second = observation, {k: v + 1 for k, v in observation.items()}
    stepped, stacked = Controller(path), Controller(path)
    stepped.observe(first)
    got = stepped.act(second).actions
    want = stacked.act({k: np.stack([first[k], second[k]]) for k in first}).actions
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda o: o | {"object": o["object"] * np.nan}, "'object' is not finite"),
        (lambda o: o | {"object": o["object"][:5]}, "'object' has shape"),
        (lambda o: {k: v for k, v in o.items() if k != "object"}, "'object' is missing"),
        (lambda o: o | {"object": np.full(10, np.inf)}, "'object' is not finite"),
    ],
)
def test_bad_observations_never_become_actions(any_controller_path, observation, damage, message):
    controller = Controller(any_controller_path)
    with pytest.raises(GenpolicyError, match=message):
        controller.act(damage(observation))
    # The fault leaves no trace: the next good observation gives what it would have given.
    np.testing.assert_array_equal(
        controller.act(observation).actions,
        Controller(any_controller_path).act(observation).actions,
    )


def test_predict_follows_the_number_of_samples_in_the_noise(any_controller_path, observation):
    controller = Controller(any_controller_path)
    obs = {k: v[None, None] for k, v in observation.items()}
    shapes, rng = controller.contract.noise_shapes(5), np.random.default_rng(0)
    noise = {k: rng.standard_normal(shape, dtype=np.float32) for k, shape in shapes.items()}
    actions, scores = controller.predict(obs, noise)
    assert actions.shape == (5, controller.contract.spec.chunk, 7)
    assert scores is not None and scores.shape == (5,)
    alone, _ = controller.predict(obs, {k: v[:, 2:3] for k, v in noise.items()})
    np.testing.assert_allclose(alone[0], actions[2], atol=1e-6)
    with pytest.raises(GenpolicyError, match="noise"):
        controller.predict(obs, noise | {"noise": noise["noise"][..., :2]})
