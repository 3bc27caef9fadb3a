"""The main job end to end on Panda Lift; an interrupted demo goes on with its first open stage.

Demonstrations of a scripted expert -> imitation -> DPPO in simulation -> a value function for
V-GPS re-ranking -> one ONNX controller -> a simulated robot in real time -> a report. Each stage
is an ordinary command, printed before it runs, in a folder of its own inside run_dir.

Examples:
    genpolicy demo
    genpolicy demo run_dir=runs/demo-seed1 seed=1
    genpolicy demo experiment=demo_fast run_dir=runs/demo-fast
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from genpolicy.commands.common import Invocation
from genpolicy.commands.configs import Demo
from genpolicy.commands.demo_report import write_report
from genpolicy.commands.stages import Stage, check, clock, quoted, run_stages
from genpolicy.runs.files import read_json, write_text
from genpolicy.runs.progress import say
from genpolicy.spec import GenpolicyError

TASK = "lift"
# While learning, policies are compared in other initial states than those of the report: the
# best of many checkpoints is too good on the states that it was chosen by.
SELECTION_SEED0 = 500


def run(config: Demo, invocation: Invocation) -> Path:
    """Run every stage that is not finished; returns the report."""
    root = Path(config.run_dir)
    _claim(root, invocation.resolved)
    stages = plan(config)
    check(stages)
    page = root / "report.html"
    if page.exists() and all(stage.result for stage in stages):
        say(f"Everything is finished: {page} (delete {root} to start again).")
        return page
    run_stages(stages)
    write_report(root, stages, invocation.resolved)
    total = sum(stage.result["seconds"] for stage in stages if stage.result)
    say(f"Done in {clock(total)}: {page}")
    return page


def _claim(root: Path, resolved: dict[str, Any]) -> None:
    """Make ``root`` ours, or see that it holds a demo with the same configuration.

    Raises:
        GenpolicyError: it holds something else.
    """
    path, ours = root / "demo.yaml", {k: v for k, v in resolved.items() if k != "run_dir"}
    if not path.exists():
        if root.exists() and any(root.iterdir()):
            raise GenpolicyError(f"run_dir={root} holds something that is no demo: choose another")
        root.mkdir(parents=True, exist_ok=True)
        write_text(path, yaml.safe_dump(ours, sort_keys=False))
        return
    theirs = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key in ours:
        if ours[key] != theirs.get(key):
            raise GenpolicyError(
                f"run_dir={root} holds a demo with another {key}: give the same one to go on, "
                f"or another run_dir to start anew"
            )


def plan(config: Demo) -> list[Stage]:
    """All stages, in order."""
    return _Plan(config).stages


class _Plan:
    """Builds the stages; later ones name the files of earlier ones."""

    def __init__(self, config: Demo) -> None:
        self.config, self.root = config, Path(config.run_dir)
        self.stages: list[Stage] = []
        few = self._collect("demonstrations", config.demonstrations)
        full = self._collect("reference_demonstrations", config.reference_demonstrations)
        base = self._pretrain("pretrain", config.demonstrations, few)
        reference = self._pretrain("reference", config.reference_demonstrations, full)
        tuned = self._train("finetune", "reinforcement learning (DPPO)", "finetune", f"init={base}")
        value = self._value(base, few)
        reranking = [f"value={value}", f"num_samples={config.num_samples}"]
        self._evaluate("pretrained", base)
        self._evaluate("reference", reference)
        self._evaluate("pretrained_reranked", base, *reranking)
        self._evaluate("finetuned", tuned)
        self._evaluate("reranked", tuned, *reranking)
        onnx = self._export(tuned, *reranking)
        self._evaluate("onnx", onnx)
        self._deploy(onnx)

    def _add(
        self,
        name: str,
        title: str,
        command: list[str],
        summary: Callable[[Path], str],
        products: tuple[Path, ...] = (),
    ) -> None:
        folder = self.root / name
        self.stages.append(Stage(folder, title, tuple(command), lambda: summary(folder), products))

    def _common(self, seed: int | None = None) -> list[str]:
        config = self.config
        keys = {"seed": config.seed if seed is None else seed, "device": config.device}
        if config.num_threads is not None:
            keys["num_threads"] = config.num_threads
        return [f"{key}={value}" for key, value in keys.items()]

    def _options(self, verb: str) -> list[str]:
        return list(self.config.options.get(verb, []))

    def _collect(self, name: str, episodes: int, *overrides: str, seed: int | None = None) -> str:
        out = quoted(self.root / name / "episodes.hdf5")
        command = ["genpolicy", "collect", f"task={TASK}", f"out={out}", f"episodes={episodes}"]
        command += [*overrides, *self._common(seed), *self._options("collect")]
        who = "the pretrained policy" if overrides else "the scripted expert"
        self._add(name, f"{episodes} episodes of {who}", command, lambda _: f"{episodes} episodes")
        return out

    def _train(self, name: str, title: str, verb: str, *overrides: str) -> str:
        """A training run in ``root/name``; returns the checkpoint argument for its best."""
        where = quoted(self.root / name)
        command = ["genpolicy", verb, *overrides, f"run_dir={where}", f"seed0={SELECTION_SEED0}"]
        command += [*self._common(), *self._options(verb)]
        self._add(name, title, command, _trained)
        return where

    def _pretrain(self, name: str, episodes: int, data: str) -> str:
        """Imitation; what counts is where it ends, not its luckiest moment."""
        title = f"imitation of {episodes} demonstrations"
        overrides = (f"task={TASK}", f"data.path={data}")
        return self._train(name, title, "pretrain", *overrides) + "/checkpoints/last"

    def _value(self, base: str, few: str) -> str:
        seed = self.config.seed + 1  # other initial states than the demonstrations'
        rolled = self._collect("rollouts", self.config.rollouts, f"checkpoint={base}", seed=seed)
        overrides = (f"checkpoint={base}", f"data.path=[{few},{rolled}]")
        return self._train("value", "value function (Cal-QL)", "value", *overrides)

    def _evaluate(self, name: str, checkpoint: str, *overrides: str) -> None:
        config, where = self.config, quoted(self.root / f"eval_{name}")
        command = ["genpolicy", "eval", f"checkpoint={checkpoint}", *overrides, f"run_dir={where}"]
        command += [f"episodes={config.episodes}", f"seed0={config.seed0}", "videos=0"]
        command += [*self._common(), *self._options("eval")]
        self._add(f"eval_{name}", f"evaluation: {name}", command, _evaluated)

    def _export(self, tuned: str, *reranking: str) -> str:
        out = self.root / "controller.onnx"
        command = ["genpolicy", "export", f"checkpoint={tuned}", *reranking, f"out={quoted(out)}"]
        command += [f"evaluation={quoted(self.root / 'eval_reranked' / 'eval.json')}"]
        self._add("export", "export", command, lambda _: _size(out), (out,))
        return quoted(out)

    def _deploy(self, controller: str) -> None:
        config, folder = self.config, self.root / "deploy"
        command = ["genpolicy-deploy", "run", str(self.root / "controller.onnx")]
        command += ["--robot", "mujoco", "--episodes", str(config.deploy_episodes)]
        command += ["--seed", str(config.seed0), "--json", str(folder / "deploy.json")]
        command += ["--log", str(folder / "flight.mcap")]
        self._add("deploy", "simulated robot in real time", command, _deployed)


def _trained(folder: Path) -> str:
    evaluations = sorted((folder / "eval").glob("*.json"))
    return success(read_json(evaluations[-1])) if evaluations else "trained"


def _evaluated(folder: Path) -> str:
    return success(read_json(folder / "eval.json"))


def _deployed(folder: Path) -> str:
    result = read_json(folder / "deploy.json")
    return f"{success(result['stage'])}, {result['deploy']['missed_deadlines']} missed deadlines"


def success(stage: dict[str, Any]) -> str:
    """One stage in words."""
    lo, hi = (stage[key] for key in ("success_lo", "success_hi"))
    return f"success {stage['success_rate']:.3f} [{lo:.3f}, {hi:.3f}], {stage['episodes']} episodes"


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
