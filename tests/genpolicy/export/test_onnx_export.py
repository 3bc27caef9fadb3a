import numpy as np
import onnx
import pytest
import torch
from genpolicy_deploy.contract import METADATA_KEY, rtc_inputs
from genpolicy_deploy.controller import Controller

from genpolicy.data.normalizer import Normalizer
from genpolicy.export import onnx as exporter
from genpolicy.export.graph import ExpMish
from genpolicy.export.onnx import PARITY_TOLERANCE, describe_sampler, export, random_inputs
from genpolicy.policies import POLICIES
from genpolicy.policies.diffusion import DiffusionConfig, DiffusionPolicy
from genpolicy.policies.edit import OnTheFlyConfig
from genpolicy.policies.flow import FlowConfig
from genpolicy.policies.gaussian import GaussianConfig
from genpolicy.policies.latent import LatentConfig
from genpolicy.spec import ActionSpec, Feature, GenpolicyError, PolicySpec, TaskSpec
from genpolicy.values.critic import ValueConfig, ValueFunction
from genpolicy.values.rerank import RerankedPolicy

SMALL = {"hidden": (16, 16, 16), "time_dim": 8, "train_steps": 6}
FLOW = {"hidden": (16, 16, 16), "time_dim": 8}
SAMPLERS = {
    "ddim": DiffusionConfig(**SMALL, sample_steps=2, eta=0.0, activation="mish"),
    "ddpm": DiffusionConfig(**SMALL, sample_steps=6, eta=1.0),
    "tuned": DiffusionConfig(**SMALL, sample_steps=3, eta=0.0, tuned_steps=2),
    "euler": FlowConfig(**FLOW, sample_steps=3),
    "heun": FlowConfig(**FLOW, sample_steps=2, solver="heun", squash="tanh", normal_field=True),
    "zero": FlowConfig(**FLOW, sample_steps=2, initial_noise=0.0),
    "latent": LatentConfig(
        hidden=(16, 16, 16), execute_std=1.0, decoder={"name": "flow", "sample_steps": 2, **FLOW}
    ),
    "on_the_fly": OnTheFlyConfig(
        {"name": "flow", "sample_steps": 2, **FLOW},
        samples=3,
        edit_scale=0.3,
        edit_hidden=(8, 8, 8),
        critics=4,
        critic_hidden=(8,),
    ),
    "mean": GaussianConfig(hidden=(16, 16, 16)),
    "gaussian": GaussianConfig(
        hidden=(16, 16, 16), std="independent", squash="tanh", execute_std=1.0
    ),
}
EXPORTS = [
    *SAMPLERS,
    "ddim+value",
    "ddpm+value",
    "heun+value",
    "gaussian+value",
    "on_the_fly+value",
]


def make_spec(exec_steps=3):
    task = TaskSpec(
        task="reach",
        robot="arm",
        observations=(Feature("pos", (3,), "m"), Feature("grip", (1,))),
        action=ActionSpec(("dx", "dy", "dz"), ("m",) * 3, (-1.0,) * 3, (1.0, 1.0, 0.5)),
        control_mode="delta",
        control_hz=20.0,
        max_episode_steps=50,
    )
    return PolicySpec(task, obs_steps=2, chunk=4, exec_steps=exec_steps)


def fitted(task):
    rng = np.random.default_rng(0)
    obs = {
        f.name: torch.from_numpy(rng.normal(2, 3, (50, f.dim))).float() for f in task.observations
    }
    return Normalizer.fit(task, obs, torch.rand(50, 3) - 0.5).state_dict()


def make_policy(spec, config):
    policy_class = next(policy for policy, kind in POLICIES.values() if kind is type(config))
    return policy_class(spec, config)


@pytest.fixture(scope="module", params=EXPORTS)
def exported(request, tmp_path_factory):
    """Each sampler with and without a value function: policy, value, file, contract."""
    sampler, _, with_value = request.param.partition("+")
    torch.manual_seed(0)
    spec = make_spec(exec_steps=4 if sampler == "on_the_fly" else 3)
    policy = make_policy(spec, SAMPLERS[sampler])
    policy.normalizer.load_state_dict(fitted(spec.task))
    value = None
    if with_value:
        value = ValueFunction(ValueConfig(hidden=(16, 16), members=3), spec)
        value.normalizer.load_state_dict(fitted(spec.task))
    if sampler == "tuned":
        torch.nn.init.normal_(policy.frozen.trunk.out.weight)  # the two halves must differ
    path = tmp_path_factory.mktemp("export") / "controller.onnx"
    contract = export(
        policy,
        value,
        path,
        num_samples=4 if with_value else 1,
        checkpoint_hash="abc",
        evaluation={"success_rate": 0.5, "success_lo": 0.4, "success_hi": 0.6, "episodes": 300},
    )
    return policy, value, path, contract


@pytest.mark.parametrize("num_samples", [1, 10])
def test_the_robots_controller_computes_what_torch_computes(exported, num_samples):
    policy, value, path, _ = exported
    controller = Controller(path, num_samples=1)
    inputs = random_inputs(policy, num_samples, np.random.default_rng(7))
    obs = {k.removeprefix("obs."): v for k, v in inputs.items() if k.startswith("obs.")}
    actions, scores = controller.predict(obs, inputs)
    tensors = {k: torch.from_numpy(v) for k, v in inputs.items()}
    torch_obs = {k: tensors[f"obs.{k}"] for k in obs}
    noise = {k: tensors[k] for k in policy.noise_spec(1, 1)}
    expected = policy.sample(torch_obs, noise=noise, num_samples=num_samples)
    assert actions.shape == (num_samples, 4, 3)
    np.testing.assert_allclose(actions, expected[0].detach(), atol=PARITY_TOLERANCE)
    if value is None:
        assert scores is None
    else:
        scored = value.score(torch_obs, expected)[0].detach()
        np.testing.assert_allclose(scores, scored, atol=PARITY_TOLERANCE)


def test_the_robot_executes_the_sample_that_training_would(exported):
    policy, value, path, _ = exported
    if value is None:
        return
    controller = Controller(path)
    rng = np.random.default_rng(3)
    obs = {"pos": rng.normal(size=(2, 3)), "grip": rng.normal(size=(2, 1))}
    chunk = controller.act({k: v.astype(np.float32) for k, v in obs.items()})
    noise = {k: torch.from_numpy(v) for k, v in controller.noise().items()}
    torch_obs = {k: torch.from_numpy(v[None].astype(np.float32)) for k, v in obs.items()}
    expected = RerankedPolicy(policy, value, num_samples=4).sample(torch_obs, noise=noise)
    np.testing.assert_allclose(chunk.actions, expected[0, 0].detach(), atol=PARITY_TOLERANCE)


def test_the_graph_is_deterministic_and_says_nothing_of_this_machine(exported):
    _, _, path, contract = exported
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert not [n.op_type for n in model.graph.node if "Random" in n.op_type]
    assert not [n.op_type for n in model.graph.node if n.op_type in ("Loop", "Scan", "If")]
    assert {n.domain for n in model.graph.node} == {""}  # standard operators only
    raw = path.read_bytes()
    assert str(path.parent.parent).encode() not in raw
    assert b".py" not in raw and b"site-packages" not in raw
    assert contract.parity_max_abs_err <= PARITY_TOLERANCE


def test_every_draw_is_an_input_even_where_nothing_depends_on_it(exported):
    """With a zero scale the noise still says how many samples are wanted."""
    policy, _, path, contract = exported
    names = [f"obs.{f.name}" for f in policy.spec.task.observations] + list(policy.noise_spec(1, 1))
    names += rtc_inputs(contract)
    assert [i.name for i in onnx.load(path).graph.input] == names


def test_the_contract_describes_the_controller(exported):
    policy, value, path, contract = exported
    read = Controller(path, num_samples=1).contract
    assert read.to_json() == contract.to_json()
    assert read.spec == policy.spec
    assert read.checkpoint_hash == "abc"
    assert read.evaluation["episodes"] == 300
    assert read.has_scores == (value is not None)
    config = policy.config_dict()
    assert read.sampler["name"] == policy.name
    inner = next((name for name in ("decoder", "base") if name in config), None)
    if inner is not None:  # what stands behind a latent, or before an edit
        assert read.sampler.pop(inner) == describe_sampler(config[inner])
    assert read.sampler.pop("steps") == config.get(inner, config).get("sample_steps", 1)
    assert read.sampler == {key: config[key] for key in read.sampler}
    assert {p.key for p in onnx.load(path).metadata_props} == {METADATA_KEY}


def test_a_file_is_never_overwritten(exported):
    policy, value, path, _ = exported
    before = path.read_bytes()
    with pytest.raises(GenpolicyError, match="exists"):
        export(policy, value, path)
    assert path.read_bytes() == before


def test_nothing_is_written_when_onnx_computes_something_else(tmp_path, monkeypatch):
    policy = DiffusionPolicy(make_spec(), SAMPLERS["ddim"])
    monkeypatch.setattr(exporter, "build_graph", slightly_wrong(exporter.build_graph))
    with pytest.raises(GenpolicyError, match="disagree on actions"):
        export(policy, None, tmp_path / "controller.onnx")
    assert list(tmp_path.iterdir()) == []


def slightly_wrong(build_graph):
    """The right graph with one weight off by a per mille."""

    def build(*args):
        model = build_graph(*args)
        largest = max(model.graph.initializer, key=lambda t: len(t.raw_data))
        weight = onnx.numpy_helper.to_array(largest).copy()
        weight.flat[0] += 0.3
        largest.CopyFrom(onnx.numpy_helper.from_array(weight, largest.name))
        return model

    return build


def test_nothing_is_written_when_the_policy_is_not_finite(tmp_path):
    policy = DiffusionPolicy(make_spec(), SAMPLERS["ddim"])
    torch.nn.init.constant_(policy.net.trunk.out.weight, float("nan"))
    with pytest.raises(GenpolicyError, match="nothing was written"):
        export(policy, None, tmp_path / "controller.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_choice_without_a_value_function_is_refused(tmp_path):
    policy = DiffusionPolicy(make_spec(), SAMPLERS["ddim"])
    with pytest.raises(GenpolicyError, match="value function"):
        export(policy, None, tmp_path / "controller.onnx", num_samples=10)


def test_mish_with_one_exponential_is_mish():
    x = torch.cat([torch.linspace(-100, 100, 4001), torch.tensor([1e30, -1e30, 0.0])])
    torch.testing.assert_close(ExpMish()(x), torch.nn.functional.mish(x), atol=1e-6, rtol=1e-6)
