"""Files appear whole or not at all."""

import json

import pytest

from genpolicy.runs.files import new_file, new_folder, read_json, refuse_existing, write_json
from genpolicy.spec import GenpolicyError


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "out.bin"
    with pytest.raises(RuntimeError), new_file(target) as aside:
        aside.write_bytes(b"half")
        raise RuntimeError
    assert list(target.parent.iterdir()) == []
    with new_file(target) as aside:
        aside.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"


def test_a_folder_is_replaced_only_by_a_whole_one(tmp_path):
    target = tmp_path / "step"
    with new_folder(target) as aside:
        (aside / "a").write_text("old")
    with pytest.raises(RuntimeError), new_folder(target) as aside:
        (aside / "a").write_text("half")
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    with new_folder(target) as aside:
        (aside / "b").write_text("new")
    assert [p.name for p in target.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["step"]


def test_json_keeps_lists_of_numbers_on_one_line(tmp_path):
    data = {"a": [1, 2.5, -3e-7], "text": "[1,\n 2]", "deep": {"list": list(range(100))}, "e": []}
    write_json(tmp_path / "x.json", data)
    assert read_json(tmp_path / "x.json") == data
    assert len((tmp_path / "x.json").read_text().splitlines()) == 8


def test_json_refuses_what_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "y.json").write_text(json.dumps({})[:1])
    with pytest.raises(GenpolicyError, match=r"y\.json: not valid JSON"):
        read_json(tmp_path / "y.json")
    with pytest.raises(GenpolicyError, match=r"z\.json: cannot be read"):
        read_json(tmp_path / "z.json")


def test_existing_places_are_refused(tmp_path):
    refuse_existing(tmp_path / "new", "out")
    with pytest.raises(GenpolicyError, match="nothing is overwritten: choose another out"):
        refuse_existing(tmp_path, "out")
