"""Imitation: the average's closed form, learning, exact resume, several processes."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toy_demonstrations import make_episode, make_task

from genpolicy.data.demonstrations import Demonstrations
from genpolicy.data.normalizer import Normalizer
from genpolicy.data.windows import ChunkDataset
from genpolicy.policies import build_policy
from genpolicy.pretrain.ema import Ema
from genpolicy.pretrain.imitation import Imitation, ImitationConfig, learning_rate
from genpolicy.runs import distributed
from genpolicy.spec import GenpolicyError, PolicySpec

TASK = make_task({"position": 3, "velocity": 2})
SPEC = PolicySpec(TASK, obs_steps=2, chunk=4, exec_steps=2)
CONFIG = ImitationConfig(batch_size=16, lr=1e-2, warmup_steps=5)


def make_dataset(lengths=(9, 1, 14, 6)):
    """Actions are a linear function of the present observation, so that they can be learned."""
    rng = np.random.default_rng(0)
    episodes = [make_episode(TASK, length, rng) for length in lengths]
    for episode in episodes:
        episode.actions = np.tanh(episode.obs["position"][:, :2] - episode.obs["velocity"])
    demos = Demonstrations.from_episodes(episodes, TASK)
    return ChunkDataset(demos, SPEC.obs_steps, SPEC.chunk)


class LinearPolicy(nn.Module):
    """The smallest policy: linear regression of the chunk, with nothing random."""

    def __init__(self):
        super().__init__()
        self.spec = SPEC
        self.normalizer = Normalizer(TASK)
        self.net = nn.Linear(10, 8)
        self.rng = np.random.default_rng(0)

    def loss(self, batch):
        predicted = self.net(self.normalizer.obs(batch["obs"]))
        target = self.normalizer.action(batch["actions"]).flatten(1)
        return (predicted - target).square().mean(), {}


def make_linear():
    torch.manual_seed(0)
    return LinearPolicy()


def make_diffusion():
    torch.manual_seed(0)
    config = {"name": "diffusion", "hidden": [32, 32, 32], "train_steps": 10, "sample_steps": 10}
    return build_policy(config, SPEC)


def make_flow():
    torch.manual_seed(0)
    return build_policy({"name": "flow", "hidden": [32, 32, 32]}, SPEC)


def make_gaussian():
    torch.manual_seed(0)
    config = {"name": "gaussian", "hidden": [32, 32, 32], "std": "independent"}
    return build_policy(config, SPEC)


POLICIES = pytest.mark.parametrize(
    "make_policy", [make_linear, make_diffusion, make_flow, make_gaussian]
)


def run(imitation, steps):
    for _ in range(steps):
        imitation.collect()
        imitation.update()
    return imitation


def test_ema_closed_form():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = Ema(model, decay=0.6)
    expected = 0.0
    for n, value in enumerate([1.0, -2.0, 5.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]):
        nn.init.constant_(model.weight, value)
        ema.update()
        decay = min(0.6, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
        assert ema.module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert decay < 0.6 and not ema.module.weight.requires_grad
    for _ in range(300):
        ema.update()
    assert ema.current_decay() == 0.6
    assert ema.module.weight.item() == pytest.approx(3.0)


def test_learning_rate_warms_up_and_falls():
    config = ImitationConfig(lr=1.0, lr_final=0.2, warmup_steps=10, decay_steps=110)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 10) == pytest.approx(1.0)
    assert learning_rate(config, 60) == pytest.approx(0.6)
    assert learning_rate(config, 110) == learning_rate(config, 10_000) == pytest.approx(0.2)
    constant = replace(config, decay_steps=0, warmup_steps=0)
    assert [learning_rate(constant, step) for step in (0, 1, 500)] == [1.0] * 3


@POLICIES
def test_loss_falls(make_policy):
    imitation = Imitation(make_policy(), make_dataset(), CONFIG)
    first = [run(imitation, 1).metrics()["train/loss"] for _ in range(10)]
    run(imitation, 200)
    last = [run(imitation, 1).metrics()["train/loss"] for _ in range(10)]
    assert np.mean(last) < 0.6 * np.mean(first)


def test_average_policy_learns_the_task():
    dataset = make_dataset()
    imitation = run(Imitation(make_linear(), dataset, CONFIG), 400)
    batch = dataset.batch(torch.arange(len(dataset)))
    fitted = imitation.policy.loss(batch)[0].item()
    inputs = imitation.policy.normalizer.obs(batch["obs"])
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    targets = imitation.policy.normalizer.action(batch["actions"]).flatten(1)
    best = torch.linalg.lstsq(inputs, targets).solution
    optimum = (inputs @ best - targets).square().mean().item()
    assert optimum <= fitted < 1.02 * optimum


def test_every_epoch_sees_every_window_once():
    dataset = make_dataset((10, 14))  # 24 windows, batches of 9: epochs end inside batches
    imitation = Imitation(make_linear(), dataset, replace(CONFIG, batch_size=9))
    drawn = []
    dataset.batch = lambda indices: drawn.extend(indices.tolist())
    for _ in range(16):
        imitation.collect()
    for epoch in range(6):
        assert sorted(drawn[24 * epoch : 24 * epoch + 24]) == list(range(24))
    assert drawn[:24] != drawn[24:48]


def test_batch_may_exceed_the_data():
    dataset = make_dataset((1,))
    imitation = run(Imitation(make_linear(), dataset, CONFIG), 3)
    assert math.isfinite(imitation.metrics()["train/loss"])


@POLICIES
def test_resume_is_exact(make_policy):
    config = replace(CONFIG, decay_steps=20)
    whole = run(Imitation(make_policy(), make_dataset(), config, seed=3), 20)
    half = run(Imitation(make_policy(), make_dataset(), config, seed=3), 10)
    # Through the file format of checkpoints: nothing in the state may need code to load.
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    resumed = Imitation(make_policy(), make_dataset(), config, seed=99)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    run(resumed, 10)
    for ours, theirs in ((resumed.model, whole.model), (resumed.policy, whole.policy)):
        for key, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[key], value), key
    assert resumed.metrics() == whole.metrics()


def test_evaluating_does_not_disturb_training():
    plain = run(Imitation(make_diffusion(), make_dataset(), CONFIG), 4)
    evaluated = Imitation(make_diffusion(), make_dataset(), CONFIG)
    obs = {"position": np.zeros((3, 2, 3)), "velocity": np.zeros((3, 2, 2))}
    for _ in range(4):
        run(evaluated, 1)
        evaluated.policy.act(obs)
    assert plain.metrics() == evaluated.metrics()


def test_constant_dimensions_and_one_step_episodes():
    rng = np.random.default_rng(0)
    episodes = [make_episode(TASK, 1, rng) for _ in range(5)]
    for episode in episodes:
        episode.obs["velocity"][:] = 3.0
        episode.actions[:, 1] = -0.25
    dataset = ChunkDataset(Demonstrations.from_episodes(episodes, TASK), 2, 4)
    imitation = run(Imitation(make_diffusion(), dataset, CONFIG), 5)
    assert math.isfinite(imitation.metrics()["train/loss"])
    obs = {k: v[:1, None].repeat(2, 1).astype(np.float32) for k, v in episodes[0].obs.items()}
    actions = imitation.policy.act(obs)
    np.testing.assert_allclose(actions[..., 1], -0.25)


@pytest.mark.parametrize("make_policy", [make_diffusion, make_flow, make_gaussian])
def test_bfloat16_keeps_float32_weights(make_policy):
    imitation = run(Imitation(make_policy(), make_dataset(), replace(CONFIG, bf16=True)), 3)
    assert all(p.dtype == torch.float32 for p in imitation.model.parameters())
    assert math.isfinite(imitation.metrics()["train/loss"])


def test_metric_names():
    metrics = run(Imitation(make_linear(), make_dataset(), CONFIG), 1).metrics()
    assert set(metrics) == {"train/loss", "train/grad_norm", "train/lr"}
    assert all(type(value) is float for value in metrics.values())


@pytest.mark.parametrize("change", [{"batch_size": 0}, {"lr": 0.0}, {"ema_decay": 1.0}])
def test_impossible_configurations_are_refused(change):
    with pytest.raises(GenpolicyError, match=next(iter(change))):
        replace(CONFIG, **change)


def test_processes_share_a_batch(monkeypatch):
    """Rank by rank, with the group simulated: parts of one batch, own noise, averaged gradients."""
    drawn, averaged, noise = [], [], []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "average_gradients", lambda p: averaged.append(len(list(p))))
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        imitation = Imitation(make_linear(), make_dataset(), CONFIG)
        batch, whole = imitation.dataset.batch, []
        monkeypatch.setattr(
            imitation.dataset, "batch", lambda i, b=batch, w=whole: w.extend(i.tolist()) or b(i)
        )
        run(imitation, 3)
        drawn.append(whole)
        noise.append(imitation.model.rng.standard_normal())
    monkeypatch.undo()
    dataset, together = make_dataset(), []
    monkeypatch.setattr(dataset, "batch", lambda indices: together.extend(indices.tolist()))
    alone = Imitation(make_linear(), dataset, CONFIG)
    for _ in range(3):
        alone.collect()
    assert [drawn[i % 2][i // 2] for i in range(48)] == together
    assert averaged == [2] * 6
    assert noise[0] != noise[1]


def test_batch_must_divide_among_processes(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(GenpolicyError, match="batch_size=16 must be a multiple of the 3"):
        replace(CONFIG, lr=1.0)
