"""metrics.csv with growing columns; W&B offline read back from the bytes it wrote."""

import json
import struct

import pytest
from wandb.proto import wandb_internal_pb2

from genpolicy.runs.logger import CsvLog, Logger, read_csv, wandb_mode
from genpolicy.spec import GenpolicyError


def records(path):
    """Records of a .wandb file: a LevelDB log of 32 KiB blocks behind a 7-byte header."""
    data, at, buffer = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        if kind == 0:
            break
        chunk, at = data[at + 7 : at + 7 + size], at + 7 + size
        buffer = chunk if kind in (1, 2) else buffer + chunk
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(buffer)
            yield record


def history(path):
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}


def test_offline_run_holds_the_curves(tmp_path):
    logger = Logger(tmp_path, {"seed": 7}, mode="offline", x_axis="step/env")
    for i in range(300):
        row = {
            "step/update": i,
            "step/env": 40 * i,
            "step/wall_s": 0.1 * i,
            "train/loss": 1 / (i + 1),
        }
        logger.log({**row, "eval/success_rate": 0.5} if i % 100 == 0 else row)
    logger.close()
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    rows = list(history(path))
    assert [row["train/loss"] for row in rows] == [1 / (i + 1) for i in range(300)]
    assert [row["step/env"] for row in rows] == [40 * i for i in range(300)]
    assert sum("eval/success_rate" in row for row in rows) == 3
    metrics = [r.metric for r in records(path) if r.WhichOneof("record_type") == "metric"]
    axes = {m.glob_name: m.step_metric for m in metrics if m.glob_name}
    assert axes["train/*"] == axes["eval/*"] == "step/env"
    assert len(read_csv(tmp_path / "metrics.csv")) == 300
    # A resumed run continues the same W&B run.
    again = Logger(tmp_path, {"seed": 7}, mode="offline", resume_step=100)
    again.close()
    ids = {p.name.rsplit("-", 1)[1] for p in tmp_path.glob("wandb/offline-run-*")}
    assert len(ids) == 1
    assert len(read_csv(tmp_path / "metrics.csv")) == 101


def test_columns_may_grow(tmp_path):
    log = CsvLog(tmp_path / "metrics.csv")
    log.write({"step/update": 1, "a": 0.1})
    log.write({"step/update": 2, "b": 0.2})
    log.write({"step/update": 3, "a": 0.3, "b": float("nan")})
    rows = read_csv(tmp_path / "metrics.csv")
    assert rows[:2] == [{"step/update": 1, "a": 0.1}, {"step/update": 2, "b": 0.2}]
    assert rows[2]["a"] == 0.3
    assert rows[2]["b"] != rows[2]["b"]
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == "step/update,a,b"


def test_floats_survive_exactly(tmp_path):
    log = CsvLog(tmp_path / "metrics.csv")
    log.write({"step/update": 1, "x": 0.1 + 0.2})
    assert read_csv(tmp_path / "metrics.csv")[0]["x"] == 0.1 + 0.2


def test_continuing_drops_rows_after_the_checkpoint(tmp_path):
    log = CsvLog(tmp_path / "metrics.csv")
    for step in (1, 2, 3):
        log.write({"step/update": step})
    CsvLog(tmp_path / "metrics.csv", up_to_step=2).write({"step/update": 9})
    rows = read_csv(tmp_path / "metrics.csv")
    assert [row["step/update"] for row in rows] == [1, 2, 9]


def test_without_a_key_wandb_is_offline_and_with_one_online(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_mode("auto") == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password 0123\n")
    assert wandb_mode("auto") == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert wandb_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert wandb_mode("auto") == "online"
    assert wandb_mode("disabled") == "disabled"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_mode("auto") == "offline"


def test_unknown_modes_are_refused():
    with pytest.raises(GenpolicyError, match=r"wandb\.mode=on is unknown"):
        wandb_mode("on")
