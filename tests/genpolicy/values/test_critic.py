import pytest
import torch

from genpolicy.data.normalizer import Normalizer
from genpolicy.spec import GenpolicyError
from genpolicy.values import build_value
from genpolicy.values.critic import ValueConfig, ValueFunction, lower_bound


def make_value(spec, obs, **config):
    torch.manual_seed(3)
    value = ValueFunction(ValueConfig(hidden=(16, 8), members=4, **config), spec)
    fitted = Normalizer.fit(spec.task, {k: v[:, 0] for k, v in obs.items()}, torch.rand(9, 2))
    value.normalizer.load_state_dict(fitted.state_dict())
    return value


def test_sharing_the_observation_equals_scoring_each_sample_alone(spec, obs):
    value = make_value(spec, obs)
    chunks = torch.rand(5, 3, 4, 2)
    together = value.score(obs, chunks)
    for i in range(3):
        alone = value.score(obs, chunks[:, i : i + 1])
        torch.testing.assert_close(together[:, i : i + 1], alone)


def test_ensemble_equals_each_member_written_out(spec, obs):
    value = make_value(spec, obs)
    critic, chunks = value.critic, torch.rand(5, 3, 4, 2)
    rows, actions = value.normalizer.obs(obs), value.chunk_rows(chunks)
    q = critic(rows, actions)
    for m in range(4):
        first = torch.cat([critic.from_obs.weight[m], critic.from_chunk[m]])
        inputs = torch.cat([rows[:, None].expand(-1, 3, -1), actions], dim=-1)
        h = inputs @ first + critic.from_obs.bias[m]
        for layer in critic.layers:
            h = torch.nn.functional.layer_norm(h, h.shape[-1:]).relu()
            h = h @ layer.weight[m] + layer.bias[m]
        torch.testing.assert_close(q[m], h[..., 0])


def test_only_the_executed_rows_count(spec, obs):
    value = make_value(spec, obs)
    chunks = torch.rand(5, 3, 4, 2)
    changed = chunks.clone()
    changed[:, :, spec.exec_steps :] += 1
    assert torch.equal(value.score(obs, chunks), value.score(obs, changed))
    changed[:, :, spec.exec_steps - 1] += 1
    assert not torch.equal(value.score(obs, chunks), value.score(obs, changed))


def test_lower_bound_of_two_members_is_their_minimum():
    q = torch.randn(2, 7, 3)
    torch.testing.assert_close(lower_bound(q, 1.0), q.amin(0))
    torch.testing.assert_close(lower_bound(q, 0.0), q.mean(0))


def test_registry_rebuilds_the_same_function(spec, obs):
    value = make_value(spec, obs, pessimism=0.5)
    rebuilt = build_value(value.config_dict(), spec)
    rebuilt.load_state_dict(value.state_dict())
    chunks = torch.rand(5, 3, 4, 2)
    assert torch.equal(value.score(obs, chunks), rebuilt.score(obs, chunks))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "oracle"}, "oracle"),
        ({"name": "q_ensemble", "hiden": [8]}, "hiden"),
        ({"name": "q_ensemble", "members": 0}, "members"),
    ],
)
def test_bad_descriptions_are_refused(spec, config, message):
    with pytest.raises(GenpolicyError, match=message):
        build_value(config, spec)
