"""Scripted experts, by task name: ``EXPERTS[name](num_envs, rng, **options)``."""

from __future__ import annotations

from genpolicy_sim.experts.lift import LiftExpert

EXPERTS = {"lift": LiftExpert}
