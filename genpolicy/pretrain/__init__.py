"""Imitation: a policy from demonstrations."""

from genpolicy.pretrain.imitation import Imitation, ImitationConfig

__all__ = ["Imitation", "ImitationConfig"]
