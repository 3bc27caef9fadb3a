"""One ONNX controller: policy, and a value function if wanted; refused when parity fails.

Examples:
    genpolicy export checkpoint=runs/lift/dppo/RUN out=controller.onnx
    genpolicy export checkpoint=runs/lift/dppo/RUN value=runs/lift/cal_ql/RUN out=controller.onnx
    genpolicy export checkpoint=runs/lift/imitation/RUN rtc=prefix out=controller.onnx
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genpolicy_deploy.contract import Contract

from genpolicy.commands.common import DEFAULT_SAMPLES, Invocation
from genpolicy.commands.configs import Export
from genpolicy.export.onnx import export
from genpolicy.runs import checkpoint
from genpolicy.runs.files import read_json, refuse_existing
from genpolicy.runs.load import load_value, policy_of
from genpolicy.runs.progress import say

_STAGE = ("success_rate", "success_lo", "success_hi", "episodes", "seed0")
_RETURN = ("score", "return_mean", "return_lo", "return_hi")


def run(config: Export, invocation: Invocation) -> Contract:
    """Export and return the contract inside the file."""
    refuse_existing(Path(config.out), "out")
    stored = checkpoint.load(config.checkpoint)
    value, about = None, None
    if config.value is not None:
        value = load_value(config.value)
        found = checkpoint.load(config.value)
        about = {
            "algo": found.config["algo"]["name"],
            "checkpoint_hash": checkpoint.fingerprint(found.path),
        }
    samples = config.num_samples or (1 if value is None else DEFAULT_SAMPLES)
    evaluation = read_json(Path(config.evaluation)) if config.evaluation else stored.evaluation
    contract = export(
        policy_of(stored),
        value,
        config.out,
        num_samples=samples,
        temperature=config.temperature,
        checkpoint_hash=checkpoint.fingerprint(stored.path),
        evaluation=_quoted(evaluation) if evaluation else None,
        value_info=about,
        rtc=config.rtc,
    )
    say(
        f"{config.out}: parity error {contract.parity_max_abs_err:.1e}, "
        f"{samples} sample(s) by default."
    )
    return contract


def _quoted(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What the contract says of an evaluation: returns where they are what counts."""
    keys = (*_STAGE, *_RETURN) if evaluation.get("score") == "return" else _STAGE
    return {key: evaluation[key] for key in keys}
