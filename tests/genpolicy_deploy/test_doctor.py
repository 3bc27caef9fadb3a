"""What the robot computer's doctor sees and advises, on made-up computers; the files it names."""

from __future__ import annotations

import configparser
import json
import os
import shlex
from contextlib import contextmanager
from pathlib import Path

import pytest
from genpolicy_deploy import cli, doctor
from genpolicy_deploy.realtime import FIFO_PRIORITY, NICENESS

SYSTEM = Path(__file__).parents[2] / "configs" / "system"


@pytest.fixture
def computer(tmp_path):
    """Write files of /sys, /proc and /dev below a folder; gives that folder."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def checks_of(source, root):
    return {check.name: check for check in source(root)}


CPU = "sys/devices/system/cpu"
CLOCK = "sys/devices/system/clocksource/clocksource0"


@pytest.mark.parametrize(
    ("source", "files", "name", "state", "words"),
    [
        (doctor.kernel, {"sys/kernel/realtime": "1\n"}, "kernel", "ok", ", PREEMPT_RT"),
        (doctor.kernel, {}, "kernel", "missing", "no PREEMPT_RT"),
        (
            doctor.kernel,
            {"proc/sys/kernel/sched_rt_runtime_us": "950000\n"},
            "real-time share",
            "ok",
            "95 % of a core",
        ),
        (
            doctor.governors,
            {f"{CPU}/cpu0/cpufreq/scaling_governor": "performance\n"},
            "frequency",
            "ok",
            "performance",
        ),
        (
            doctor.governors,
            {
                f"{CPU}/cpu0/cpufreq/scaling_governor": "performance\n",
                f"{CPU}/cpu11/cpufreq/scaling_governor": "powersave\n",
            },
            "frequency",
            "missing",
            "performance, powersave",
        ),
        (doctor.governors, {}, "frequency", "ok", "not adjustable"),
        (doctor.cores, {f"{CPU}/isolated": "2-3\n"}, "cores", None, "isolated by the kernel: 2-3"),
        (doctor.clock, {f"{CLOCK}/current_clocksource": "tsc\n"}, "clock", "ok", "tsc"),
        (doctor.clock, {f"{CLOCK}/current_clocksource": "hpet\n"}, "clock", "missing", "slow"),
        (doctor.serial_ports, {}, "serial ports", "ok", "no USB adapter"),
    ],
)
def test_findings(computer, source, files, name, state, words):
    check = checks_of(source, computer(**files))[name]
    assert words in check.found
    assert state in (None, check.state)
    assert bool(check.fix) == (check.state == "missing")


def test_the_latency_of_ftdi_adapters_is_seen(computer):
    timer = "sys/bus/usb-serial/devices/ttyUSB0/latency_timer"
    root = computer(**{"dev/ttyUSB0": "", "dev/ttyACM1": "", timer: "16\n"})
    found = checks_of(doctor.serial_ports, root)
    assert list(found) == ["ttyACM1", "ttyUSB0", "latency of ttyUSB0"]
    assert found["latency of ttyUSB0"].fix == f"echo 1 | sudo tee /{timer}"
    computer(**{timer: "1\n"})
    assert not checks_of(doctor.serial_ports, root)["latency of ttyUSB0"].fix


def test_a_port_of_another_group_names_the_group(computer, monkeypatch):
    root = computer(**{"dev/ttyACM0": ""})
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may open everything
    port = root / "dev/ttyACM0"
    port.chmod(0o660)
    group = doctor._group(port.stat().st_gid)
    assert f"usermod -aG {group}" in checks_of(doctor.serial_ports, root)["ttyACM0"].fix
    port.chmod(0o600)  # no group would help
    assert "chmod a+rw" in checks_of(doctor.serial_ports, root)["ttyACM0"].fix


def test_permissions_are_tried_and_a_refusal_names_the_file(monkeypatch):
    refused = "not permitted (Operation not permitted)"

    @contextmanager
    def denied():
        yield {"sched_fifo": refused, "timer_slack": "granted", "mlockall": refused}

    monkeypatch.setattr(doctor, "soft_realtime", denied)
    found = {check.name: check for check in doctor.permissions()}
    assert refused in found["real-time priority"].found
    assert doctor.LIMITS_FILE in found["real-time priority"].fix
    assert doctor.LIMITS_FILE in found["locked memory"].fix
    assert found["timer slack"].state == "ok"


def test_missing_packages_say_what_they_are_for(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "PACKAGES", {"numpy": "all", "no-such-package": "nothing at all"})
    found = checks_of(doctor.packages, tmp_path)
    assert found["numpy"].state == "ok"
    assert found["no-such-package"].found == "needed for nothing at all"
    assert "genpolicy[robots]" in found["no-such-package"].fix


def test_command_prints_every_finding_and_its_fix(monkeypatch, tmp_path, capsys):
    wanted = [doctor.Check("good", "fine"), doctor.Check("bad", "not so", "do this")]
    monkeypatch.setattr(cli, "doctor", lambda: wanted)
    path = tmp_path / "doctor.json"
    assert cli.main(["doctor", "--json", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["ok", "good", "fine"],
        ["missing", "bad", "not", "so"],
        ["->", "do", "this"],
    ]
    assert json.loads(path.read_text())["checks"][1] == {
        "name": "bad",
        "found": "not so",
        "fix": "do this",
        "state": "missing",
    }


def test_command_on_this_computer(capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in ("real-time priority", "locked memory", "cores", "kernel", "clock", "onnxruntime"):
        assert f" {name} " in out


def test_limits_file_grants_what_the_loop_asks_for():
    lines = (SYSTEM / "genpolicy-limits.conf").read_text().splitlines()
    granted = {words[2]: words[3] for words in map(str.split, lines) if words[:1] == ["@realtime"]}
    assert int(granted["rtprio"]) >= FIFO_PRIORITY
    assert int(granted["nice"]) <= NICENESS
    assert granted["memlock"] == "unlimited"


def test_service_runs_a_valid_command_with_the_same_limits_and_never_by_itself():
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string((SYSTEM / "genpolicy-deploy.service").read_text())
    service = unit["Service"]
    assert service["Restart"] == "no" and "Install" not in unit
    assert int(service["LimitRTPRIO"]) >= FIFO_PRIORITY
    assert int(service["LimitNICE"]) <= NICENESS
    assert service["LimitMEMLOCK"] == "infinity"
    assert len(service["CPUAffinity"].split()) >= doctor.CORES
    shell, option, script = shlex.split(service["ExecStart"])
    assert (shell, option) == ("/bin/sh", "-c")
    words = shlex.split(script)
    assert words[:2] == ["exec", "/opt/genpolicy/bin/genpolicy-deploy"]
    arguments = cli._parser().parse_args(words[2:])
    assert arguments.robot_config == Path("/etc/genpolicy/arm.toml")
