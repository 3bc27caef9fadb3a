"""Results of a demo that nobody ran, as its stages would have written them."""

import numpy as np

from genpolicy.evaluate.evaluator import Evaluation
from genpolicy.runs.files import write_json, write_text

EPISODES = 300
RATES = {
    "pretrained": 0.45,
    "reference": 0.93,
    "pretrained_reranked": 0.55,
    "finetuned": 0.97,
    "reranked": 0.98,
}
SETTINGS = {
    "seed": 0,
    "demonstrations": 6,
    "reference_demonstrations": 100,
    "num_samples": 10,
    "episodes": EPISODES,
}
DEPLOY = {
    "control_hz": 20.0,
    "ticks": 12345,
    "missed_deadlines": 3,
    "lateness_us": {"p50": 55.1, "p99": 120.0, "p999": 900.0, "max": 4100.0},
    "inference_ms": {"p50": 1.234, "p99": 3.456},
    "envelope_violations_blocked": 7,
}
CURVE = (0.10, 0.30, 0.44, 0.45, 0.45)  # success at step 100, 200, …


def make_evaluation(rate, seed0=1000, episodes=EPISODES):
    """Successes spread evenly, so that a higher rate does not contain the lower one."""
    success = np.floor(np.arange(1, episodes + 1) * rate) > np.floor(np.arange(episodes) * rate)
    return Evaluation(seed0, success, success * 1.0, np.full(episodes, 40))


def write_evaluation(path, rate, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, make_evaluation(rate, **kwargs).to_dict())


def write_imitation(folder, curve):
    for i, rate in enumerate(curve, 1):
        write_evaluation(folder / "eval" / f"step_{100 * i:09d}.json", rate, seed0=500_000)


def write_finetuning(folder):
    rows = ["step/update,step/env,step/wall_s,rollout/success_rate,eval/success_rate,"
            "eval/success_lo,eval/success_hi,eval/episodes"]  # fmt: skip
    for i, rate in enumerate((0.45, 0.8, 0.97)):
        explored = "" if i == 0 else rate - 0.1
        rows.append(f"{i},{4000 * i},{50.0 * i},{explored},{rate},{rate - 0.05},{rate + 0.02},300")
        write_evaluation(folder / "eval" / f"step_{i:09d}.json", rate, seed0=500_000)
    write_text(folder / "metrics.csv", "\n".join(rows) + "\n")
    (folder / "checkpoints" / "step_000000002").mkdir(parents=True)
    write_text(folder / "checkpoints" / "best", "step_000000002\n")
