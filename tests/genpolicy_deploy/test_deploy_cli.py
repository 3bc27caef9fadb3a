"""The command line: help, inspect, bench, and bad input in one sentence with exit code 2."""

from __future__ import annotations

import json

import pytest
from genpolicy_deploy.cli import main
from genpolicy_deploy.run import wilson


def test_inspect_prints_and_writes_the_contract(any_controller_path, tmp_path, capsys):
    path = tmp_path / "contract.json"
    assert main(["inspect", str(any_controller_path), "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "osc_pose_delta at 20 Hz" in out and "reproduced" in out
    contract = json.loads(path.read_text())
    assert contract["version"] == 2 and contract["spec"]["exec_steps"] == 4
    assert "golden" not in contract


@pytest.mark.parametrize("any_controller_path", ["tiny", "flow"], indirect=True)
def test_bench_reports_bare_loop_and_each_number_of_samples(any_controller_path, tmp_path, capsys):
    path = tmp_path / "bench.json"
    code = main(
        ["bench", str(any_controller_path), "--seconds", "0.6", "--hz", "100", "--json", str(path)]
    )
    assert code == 0
    phases = json.loads(path.read_text())["phases"]
    assert list(phases) == ["bare", "K=1", "K=3"]
    assert "inference_ms" not in phases["bare"]
    assert phases["K=3"]["inference_ms"]["count"] > 0
    assert set(phases["bare"]["lateness_us"]) == {"p50", "p99", "p999", "max"}
    assert "K=3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "missing.onnx"], "missing.onnx: no such file"),
        (["run", "missing.onnx"], "no such file"),
        (["run", "CONTROLLER", "--robot", "nobody"], "'nobody' does not exist"),
        (["run", "CONTROLLER", "--robot-config", "missing.toml"], "missing.toml: cannot be read"),
        (["run", "CONTROLLER", "--num-samples", "0"], "num_samples"),
        (["run", "CONTROLLER", "--temperature", "nan"], "temperature"),
        (["run", "CONTROLLER", "--seconds", "-1"], "seconds"),
        (["run", "CONTROLLER", "--seed", "-1"], "seed"),
        (["bench", "CONTROLLER", "--hz", "0"], "--hz"),
        (["replay", "CONTROLLER"], "not a genpolicy-deploy log"),
    ],
)
def test_bad_input_ends_with_one_sentence_and_code_2(controller_path, capsys, arguments, message):
    arguments = [str(controller_path) if a == "CONTROLLER" else a for a in arguments]
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors and errors.count("\n") == 1


def test_help_says_what_it_is_not(capsys):
    for arguments in (["--help"], ["run", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        assert "not a certified safety" in " ".join(capsys.readouterr().out.split())


def test_wilson_interval_against_published_values():
    low, high = wilson(8, 10)
    assert low == pytest.approx(0.4902, abs=1e-4) and high == pytest.approx(0.9433, abs=1e-4)
    assert wilson(0, 0) == (None, None)
    assert wilson(10, 10)[1] == pytest.approx(1.0)
