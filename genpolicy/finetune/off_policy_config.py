"""Hyperparameters that EXPO, RLPD and IDQL share."""

from __future__ import annotations

from dataclasses import dataclass

from genpolicy.finetune.rollout import RolloutConfig, at_least_one, positive
from genpolicy.spec import GenpolicyError


@dataclass(frozen=True)
class OffPolicyConfig(RolloutConfig):
    """Hyperparameters of the data and of the critics.

    Attributes:
        updates: Critic gradient steps per iteration; one per transition is rollout_steps·num_envs.
        actor_every: Of so many critic steps, the last is also one of the actor.
        batch_size: Transitions per gradient step.
        offline_ratio: Share of them that comes from the demonstrations.
        capacity: Transitions of its own that the replay holds.
        replay_dir: A new folder for them: memory-mapped files, which a resumed run finds again;
            null for in memory and in the checkpoints.
        learning_starts: Transitions before the first gradient step.
        gamma: Discount per control step.
        n_chunks: Chunks whose rewards a target sums before it asks the critics.
        tau: Share of the critics that their targets take over in each gradient step.
        critics: Q functions.
        critic_hidden: Their widths, LayerNorm MLPs.
        pair: How many of them, drawn at random, a minimum is over.
        critic_lr: Their Adam learning rate.
        value_range: Lowest and highest return that the task allows: targets are cut there.
        apart: Act in a thread of its own while the learner updates, as on hardware, which does not
            wait: what acts is then one iteration behind.
    """

    rollout_steps: int = 1
    updates: int = 16
    actor_every: int = 1
    batch_size: int = 256
    offline_ratio: float = 0.5
    capacity: int = 200_000
    replay_dir: str | None = None
    learning_starts: int = 1_000
    gamma: float = 0.99
    n_chunks: int = 1
    tau: float = 0.005
    critics: int = 10
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    pair: int = 2
    critic_lr: float = 3e-4
    value_range: tuple[float, float] | None = None
    apart: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot learn."""
        super().__post_init__()
        at_least_one(
            self, "updates", "actor_every", "batch_size", "capacity", "n_chunks", "critics", "pair"
        )
        positive(self, "critic_lr", "gamma", "tau")
        if self.offline_ratio < 0:
            raise GenpolicyError(f"algo.offline_ratio={self.offline_ratio} must not be negative")
        for name in ("tau", "gamma", "offline_ratio"):
            if getattr(self, name) > 1:
                raise GenpolicyError(f"algo.{name}={getattr(self, name)} must not exceed 1")
        if not self.critic_hidden or min(self.critic_hidden) < 1:
            raise GenpolicyError(f"algo.critic_hidden={list(self.critic_hidden)} needs a layer")
        if self.pair > self.critics:
            raise GenpolicyError(f"algo.pair={self.pair} of critics={self.critics}: choose fewer")
        if self.capacity < self.learning_starts:
            raise GenpolicyError(
                f"algo.capacity={self.capacity} must hold algo.learning_starts="
                f"{self.learning_starts} transitions: it would never learn"
            )
