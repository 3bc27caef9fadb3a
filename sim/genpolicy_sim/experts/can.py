"""A scripted, noisy and bimodal expert for Panda Can."""

from __future__ import annotations

import numpy as np

from genpolicy_sim.experts.placing import PlaceExpert, Sight
from genpolicy_sim.experts.scripted import Array, leaning, pointing_down

BASE = np.array([-0.5, -0.1])  # m, of the arm


class CanExpert(PlaceExpert):
    """Takes the can about its middle and lets it fall into its compartment."""

    # m: the near part of its compartment, because its middle is out of reach.
    place = np.array([0.165, 0.36, 0.9])
    carry_height = 1.0  # m: the can passes 5 cm above the walls

    def _grasp(self, sight: Sight) -> tuple[Array, Array]:
        return sight.thing, self._held_aim(sight)

    def _held_aim(self, sight: Sight) -> Array:
        down = pointing_down(np.zeros(self.num_envs))
        return leaning(down, sight.eef[:, :2] - BASE)
