"""The keys of every command: types, defaults and documentation (values that vary go in YAML).

A field without a usable default is ``MISSING``: the command line must give it. ``policy``,
``algo`` and ``data`` are Hydra groups, whose keys are the dataclasses beside their classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class TaskConfig:
    """Which simulated task.

    Attributes:
        name: One of ``genpolicy_sim.tasks()``.
        options: What its factory takes besides ``num_envs``.
    """

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class DataConfig:
    """Which demonstrations, from HDF5 files: robomimic's, Minari's or D4RL's layout.

    Attributes:
        path: One file, or a list ``[A.hdf5,B.hdf5]`` of the same task.
        obs_keys: Observations to use; null for those of the task.
        max_episodes: Only the first so many; null for all.
        mask: Only the demonstrations of this mask in a robomimic file (``train``); null for all.
    """

    path: Any = MISSING
    obs_keys: list[str] | None = None
    max_episodes: int | None = None
    mask: str | None = None


@dataclass
class WandbConfig:
    """Weights & Biases.

    Attributes:
        mode: ``auto`` (online where there is a key, else offline), ``online``, ``offline`` or
            ``disabled``.
        project: W&B project.
        entity: W&B team; null for your own.
    """

    mode: str = "auto"
    project: str = "genpolicy"
    entity: str | None = None


@dataclass
class Common:
    """What every command takes.

    Attributes:
        task: The task (group); null for none.
        seed: Decides every draw.
        device: ``auto``, ``cpu`` or ``cuda``.
        num_envs: Environments stepped side by side.
        num_threads: Threads for learning and for physics; null for all cores.
    """

    task: TaskConfig | None = None
    seed: int = 0
    device: str = "auto"
    num_envs: int = 50
    num_threads: int | None = None


@dataclass
class Training(Common):
    """What every training command takes.

    Attributes:
        iterations: Rounds of collect and update (finetune), gradient steps (pretrain, value).
        episodes: Episodes of every evaluation.
        seed0: Initial state of their first episode; the others count up.
        eval_every: Iterations between evaluations; 0 for none.
        eval_first: Evaluate before the first iteration too.
        save_every: Iterations between checkpoints; 0 for at evaluations and at the end.
        log_every: Iterations between rows of metrics.csv.
        keep: Newest checkpoints that stay on disk, besides the best.
        stop_at: End once the lower bound of the task's score (95 % interval of the success rate or
            of the mean return) reaches this; null for never.
        run_dir: Where to write; null for runs/<task>/<algo>/<time>-s<seed>.
        resume: A run folder to continue, with its configuration; null for a new run.
        wandb: Where Weights & Biases sends to: ``mode`` is auto (online where there is a key, else
            offline), online, offline or disabled.
    """

    iterations: int = MISSING
    episodes: int = 300
    seed0: int = 1000
    eval_every: int = 0
    eval_first: bool = False
    save_every: int = 0
    log_every: int = 1
    keep: int = 3
    stop_at: float | None = None
    run_dir: str | None = None
    resume: str | None = None
    wandb: WandbConfig = field(default_factory=WandbConfig)


@dataclass
class Collect(Common):
    """Episodes of the task's scripted expert, or of a policy, as a robomimic HDF5 file.

    Attributes:
        out: The HDF5 file to write; must not exist.
        episodes: Episodes to keep.
        checkpoint: The policy that acts; null for the scripted expert.
        explore: Whether that policy explores as in RL, which makes data more diverse.
        success_only: Drop failures; null for: of the expert yes (where the task is judged by
            success), of a policy no.
        expert: Options of the scripted expert, such as ``{noise: 0.3, bimodal: true}``.
    """

    out: str = MISSING
    episodes: int = 200
    checkpoint: str | None = None
    explore: bool = False
    success_only: bool | None = None
    expert: dict[str, Any] = field(default_factory=dict)


@dataclass
class Pretrain(Training):
    """Imitation of demonstrations.

    Attributes:
        iterations: Gradient steps.
        obs_steps: To, observations that the policy sees.
        chunk: Tp, actions that it plans.
        exec_steps: Ta, how many of them are executed before it plans again.
        data: The demonstrations (group).
        policy: The policy (group).
        algo: How it is fitted (group).
    """

    iterations: int = 5000
    log_every: int = 50
    obs_steps: int = 1
    chunk: int = 4
    exec_steps: int = 4
    data: DataConfig = field(default_factory=DataConfig)
    policy: Any = MISSING
    algo: Any = MISSING


@dataclass
class Finetune(Training):
    """Reinforcement learning in simulation, from a checkpoint.

    Attributes:
        iterations: Rounds of collect and update.
        init: Checkpoint to start from; null for from scratch (then ``policy`` and horizons count).
        algo: The method (group).
        policy: The policy when starting from scratch (group).
        obs_steps: To, when starting from scratch.
        chunk: Tp, when starting from scratch.
        exec_steps: Ta, when starting from scratch.
        data: Episodes with rewards (group) that off-policy methods learn from beside their own:
            demonstrations, corrections by people; ``data.path=null`` for none.
    """

    iterations: int = 100
    num_envs: int = 40
    eval_every: int = 10
    eval_first: bool = True
    init: str | None = None
    algo: Any = MISSING
    policy: Any = MISSING
    obs_steps: int = 1
    chunk: int = 4
    exec_steps: int = 4
    data: DataConfig = field(default_factory=lambda: DataConfig(path=None))


@dataclass
class Value(Training):
    """A value function that ranks a policy's samples (V-GPS), from recorded episodes.

    Attributes:
        iterations: Gradient steps.
        checkpoint: The policy whose samples it will rank.
        data: Episodes of mixed quality (group): demonstrations and rollouts of that policy.
        algo: How it is learned (group).
        num_samples: Samples to choose from when evaluating the re-ranked policy.
        task: The task (group) in which the re-ranked policy is evaluated; null for no evaluation.
    """

    iterations: int = 1000
    log_every: int = 100
    checkpoint: str = MISSING
    num_samples: int = 10
    data: DataConfig = field(default_factory=DataConfig)
    algo: Any = MISSING


@dataclass
class Eval(Common):
    """Success or return of a policy with its interval, and videos.

    Attributes:
        task: The task (group); null for the one that the policy was made for.
        checkpoint: A checkpoint or an exported .onnx controller.
        value: Checkpoint of a value function that re-ranks the samples; null for none.
        num_samples: Samples to choose from; null for the file's own (ONNX), 10 with ``value``.
        temperature: Of the choice, 0 for the best score; null for the file's own.
        episodes: How many.
        seed0: Initial state of the first episode; the others count up.
        videos: So many failures and successes are filmed.
        run_dir: Where to write; null for runs/<task>/eval/<time>-s<seed0>.
    """

    checkpoint: str = MISSING
    value: str | None = None
    num_samples: int | None = None
    temperature: float | None = None
    episodes: int = 300
    seed0: int = 1000
    videos: int = 2
    run_dir: str | None = None


@dataclass
class Export:
    """One ONNX controller from a policy and, if wanted, a value function.

    Attributes:
        checkpoint: The policy.
        value: Checkpoint of a value function that scores its samples; null for none.
        out: The .onnx file to write; must not exist.
        num_samples: Samples among which the robot chooses by default; null for 10 with a value
            function and 1 without.
        temperature: Of that choice; 0 takes the best score.
        evaluation: eval.json that the contract quotes, for example of the re-ranked policy; null
            for the checkpoint's own.
        rtc: Real-time chunking, how a chunk goes on from the one being executed: prefix (policies
            trained with max_delay), guided (any flow policy), none, or auto: the best that fits.
    """

    checkpoint: str = MISSING
    value: str | None = None
    out: str = MISSING
    num_samples: int | None = None
    temperature: float = 0.0
    evaluation: str | None = None
    rtc: str = "auto"


@dataclass
class Demo:
    """The main job end to end on Panda Lift.

    Attributes:
        run_dir: Where everything is written; an interrupted demo in there goes on.
        seed: Decides every draw.
        device: ``auto``, ``cpu`` or ``cuda``.
        num_threads: Threads for learning and for physics; null for all cores.
        demonstrations: Episodes of the expert that the policy imitates: few, so that imitation
            ends far from perfect.
        reference_demonstrations: Episodes of the expert for the reference line.
        rollouts: Episodes of the pretrained policy from which the value function learns.
        num_samples: Samples of V-GPS.
        episodes: Episodes of every evaluation in the report.
        seed0: Initial state of their first episode; the others count up.
        deploy_episodes: Episodes of the robot in real time, from the same initial states.
        options: Further arguments of the commands that it runs, by verb.
    """

    run_dir: str = "runs/demo"
    seed: int = 0
    device: str = "auto"
    num_threads: int | None = None
    demonstrations: int = 6
    reference_demonstrations: int = 100
    rollouts: int = 300
    num_samples: int = 10
    episodes: int = 300
    seed0: int = 1000
    deploy_episodes: int = 20
    options: dict[str, list[str]] = field(default_factory=dict)


COMMANDS: dict[str, type] = {
    "collect": Collect,
    "pretrain": Pretrain,
    "finetune": Finetune,
    "value": Value,
    "eval": Eval,
    "export": Export,
    "demo": Demo,
}
