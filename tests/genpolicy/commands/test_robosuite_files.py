"""What a data file says of robosuite's tasks to readers that know nothing of genpolicy."""

import pytest
from genpolicy_sim.can import CanSim
from genpolicy_sim.lift import LiftSim
from genpolicy_sim.square import SquareSim
from genpolicy_sim.transport import TransportSim

from genpolicy.commands.collect import env_args
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
