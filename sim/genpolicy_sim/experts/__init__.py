"""Scripted experts, by task name: ``EXPERTS[name](num_envs, rng, **options)``."""

from __future__ import annotations

from genpolicy_sim.experts.avoid import AvoidExpert
from genpolicy_sim.experts.can import CanExpert
from genpolicy_sim.experts.lift import LiftExpert
from genpolicy_sim.experts.push_t import PushTExpert
from genpolicy_sim.experts.square import SquareExpert
from genpolicy_sim.experts.transport import TransportExpert

EXPERTS = {
    "avoid": AvoidExpert,
    "can": CanExpert,
    "lift": LiftExpert,
    "push_t": PushTExpert,
    "square": SquareExpert,
    "transport": TransportExpert,
}
