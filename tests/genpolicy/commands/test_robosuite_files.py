"""What a data file says of robosuite's tasks to readers that know nothing of genpolicy."""

import json

import h5py
import numpy as np
import pytest
from genpolicy_sim.can import CanSim
from genpolicy_sim.lift import LiftSim
from genpolicy_sim.square import SquareSim
from genpolicy_sim.transport import TransportSim

from genpolicy.commands.collect import env_args
from genpolicy.commands.common import demonstrations
from genpolicy.commands.configs import DataConfig
from genpolicy.data.foreign_task import derive_task


@pytest.mark.parametrize("kind", [LiftSim, CanSim, SquareSim, TransportSim])
def test_env_args_name_robosuites_task_and_lead_back_to_ours(kind):
    spec = kind.task_spec()
    args = env_args(spec)
    assert args["env_name"] == kind.robosuite_name
    shapes = {feature.name: feature.shape for feature in spec.observations}
    found = derive_task(args, shapes, spec.action.dim, 1, "demos.hdf5")
    assert (found.task, found.robot) == (spec.task, spec.robot)
    assert [f.name for f in found.observations] == [f.name for f in spec.observations]
    assert len(args["env_kwargs"]["robots"]) == kind.num_arms


@pytest.mark.parametrize(("recorded", "said"), [("1.4.1", True), (None, False)])
def test_another_version_of_robosuite_is_explained(tmp_path, capsys, recorded, said):
    spec = CanSim.task_spec()
    version = recorded or spec.versions["robosuite"]
    path = tmp_path / "can.hdf5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        demo = file.create_group("data/demo_0")
        file["data"].attrs["env_args"] = json.dumps(env_args(spec) | {"env_version": version})
        for feature in spec.observations:
            demo[f"obs/{feature.name}"] = rng.normal(size=(5, feature.dim))
        demo["actions"], demo["rewards"], demo["dones"] = np.zeros((5, 7)), np.ones(5), np.ones(5)
    demos = demonstrations(DataConfig(path=str(path)), spec)
    assert demos.task.versions == {"robosuite": version}
    words = f"recorded with robosuite 1.4.1, and this task equals {spec.versions['robosuite']}"
    assert (words in " ".join(capsys.readouterr().err.split())) == said
