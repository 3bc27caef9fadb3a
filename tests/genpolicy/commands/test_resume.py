"""Ctrl-C on the real command, and going on as if nothing had happened."""

import signal
import subprocess
import sys
import time

import torch

from genpolicy.runs import checkpoint
from genpolicy.runs.logger import read_csv


def everything(run):
    """Every tensor and number of a run's last checkpoint, by its path."""
    stored = checkpoint.load(run, prefer="last")
    state, _ = stored.training_state()
    return dict(flatten({"policy": stored.weights(), "state": state}))


def flatten(value, path=()):
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from flatten(item, (*path, key))
    else:
        yield path, value


def test_interrupted_and_resumed_equals_uninterrupted(cli, toy_pretrain, tmp_path):
    arguments = [*toy_pretrain, "iterations=4000", "log_every=1"]
    command = [sys.executable, "-m", "genpolicy.cli", *arguments, "run_dir=broken"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    rows = tmp_path / "broken" / "metrics.csv"
    while process.poll() is None and not (rows.exists() and len(rows.read_text()) > 400):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert "Ending after this iteration" in err
    step = checkpoint.load(tmp_path / "broken", prefer="last").step
    assert 0 < step < 4000
    total = step + 10
    assert cli("pretrain", "resume=broken", f"iterations={total}")[0] == 0
    assert cli(*arguments[:-2], f"iterations={total}", "log_every=1", "run_dir=whole")[0] == 0
    ours, expected = everything("broken"), everything("whole")
    assert ours.keys() == expected.keys()
    assert len(ours) > 50
    for path, value in expected.items():
        same = torch.equal(ours[path], value) if torch.is_tensor(value) else ours[path] == value
        assert same, path
    losses = [[row["train/loss"] for row in read_csv(p / "metrics.csv")] for p in
              (tmp_path / "broken", tmp_path / "whole")]  # fmt: skip
    assert losses[0] == losses[1]
    assert len(losses[0]) == total


def test_resuming_takes_the_runs_own_configuration(cli, toy_pretrain, tmp_path):
    assert cli(*toy_pretrain, "iterations=2", "run_dir=run", "seed=4", "keep=7")[0] == 0
    assert cli("pretrain", "resume=run", "iterations=5", "keep=1")[0] == 0
    stored = checkpoint.load(tmp_path / "run", prefer="last")
    assert stored.step == 5
    assert stored.config["seed"] == 4
    assert stored.config["keep"] == 1
