"""Writing that survives a crash: aside, flushed to disk, then renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genpolicy.spec import GenpolicyError


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``, atomically: a reader sees the old file or the new one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)


def write_json(path: Path, data: Any) -> None:
    """``write_text`` for JSON: indented, but every list of numbers on one line."""
    text = json.dumps(data, indent=2, allow_nan=False)
    text = re.sub(r"\[[\s\d.,eE+-]+\]", lambda found: " ".join(found[0].split()), text)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read JSON, or say which file is missing or damaged.

    Raises:
        GenpolicyError: no such file, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise GenpolicyError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise GenpolicyError(f"{path}: not valid JSON ({error})") from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Give a folder beside ``final`` to fill; flush it and move it into place on success.

    An older folder of the same name is replaced; an interruption leaves it as it was.
    """
    aside = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        _flush_tree(aside)
        _replace_folder(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def new_file(final: Path) -> Iterator[Path]:
    """Give a path beside ``final`` to write; flush it and move it into place on success."""
    final.parent.mkdir(parents=True, exist_ok=True)
    aside = final.with_name(f".{final.stem}.{os.getpid()}.tmp{final.suffix}")
    try:
        yield aside
        _flush(aside, os.O_RDWR)
        os.replace(aside, final)
        sync_folder(final.parent)
    finally:
        aside.unlink(missing_ok=True)


def refuse_existing(path: Path, key: str) -> None:
    """Stop before work starts when the result's place is taken.

    Raises:
        GenpolicyError: ``path`` exists.
    """
    if path.exists():
        raise GenpolicyError(f"{path} exists and nothing is overwritten: choose another {key}")


def _replace_folder(aside: Path, final: Path) -> None:
    old = final.with_name(f".{final.name}.{os.getpid()}.old")
    if final.exists():
        os.rename(final, old)
    os.rename(aside, final)
    sync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def _flush_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        sync_folder(path) if path.is_dir() else _flush(path, os.O_RDWR)
    sync_folder(folder)


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
