"""Generative policies, and the registry that rebuilds one from a checkpoint's description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from genpolicy.policies.base import ChunkPolicy
from genpolicy.policies.diffusion import DiffusionConfig, DiffusionPolicy
from genpolicy.policies.edit import OnTheFlyConfig, OnTheFlyPolicy
from genpolicy.policies.flow import FlowConfig, FlowPolicy
from genpolicy.policies.gaussian import GaussianConfig, GaussianPolicy
from genpolicy.policies.latent import LatentConfig, LatentPolicy
from genpolicy.spec import GenpolicyError, PolicySpec

# A name, not an import path: a checkpoint can choose among these and run nothing else.
POLICIES: dict[str, tuple[type[ChunkPolicy], type]] = {
    DiffusionPolicy.name: (DiffusionPolicy, DiffusionConfig),
    FlowPolicy.name: (FlowPolicy, FlowConfig),
    GaussianPolicy.name: (GaussianPolicy, GaussianConfig),
    LatentPolicy.name: (LatentPolicy, LatentConfig),
    OnTheFlyPolicy.name: (OnTheFlyPolicy, OnTheFlyConfig),
}


def build_policy(config: Mapping[str, Any], spec: PolicySpec) -> ChunkPolicy:
    """A policy with fresh weights from ``policy.config_dict()`` (or the ``policy`` config group).

    Raises:
        GenpolicyError: Unknown name or key; the message lists the known ones.
    """
    entries = dict(config)
    name = entries.pop("name", None)
    if name not in POLICIES:
        raise GenpolicyError(f"policy.name={name!r} is unknown; choose one of {sorted(POLICIES)}")
    policy_class, config_class = POLICIES[name]
    known = {field.name for field in fields(config_class)}
    if unknown := sorted(set(entries) - known):
        raise GenpolicyError(f"policy has unknown keys {unknown}; known are {sorted(known)}")
    typed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entries.items()}
    return policy_class(spec, config_class(**typed))
