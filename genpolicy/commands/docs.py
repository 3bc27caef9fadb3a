"""``--help`` and the tables of configuration keys, from docstrings alone."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from genpolicy.commands.configs import COMMANDS

GROUPS = ("task", "data", "policy", "algo", "logger", "experiment")


def help_text(verb: str) -> str:
    """What ``genpolicy <verb> --help`` prints; the command's module is read, not imported."""
    source = Path(__file__).with_name(f"{verb}.py").read_text(encoding="utf-8")
    parts = [f"usage: genpolicy {verb} [key=value ...]", ast.get_docstring(ast.parse(source)) or ""]
    if verb in COMMANDS:
        parts.append(f"Keys:\n{table(COMMANDS[verb])}")
        parts.append(
            "A group is chosen with group=NAME and its keys set with group.key=value;\n"
            f"`genpolicy {verb} --cfg job` shows them all, `genpolicy info algo=NAME` explains."
        )
    return "\n\n".join(parts)


def table(config: type, prefix: str = "", preset: Mapping[str, Any] | None = None) -> str:
    """One line per key: name, value in ``preset`` or else its default, documentation."""
    docs, values = field_docs(config), preset or {}
    rows = [
        (
            prefix + f.name,
            _shown(values[f.name]) if f.name in values else _default(f),
            docs.get(f.name, ""),
        )
        for f in dataclasses.fields(config)
    ]
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"  {name:<{width}}  {doc} [{default}]" for name, default, doc in rows)


def field_docs(cls: type) -> dict[str, str]:
    """Documentation of every field: from ``Attributes:`` sections, else its trailing comment."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        section = inspect.getdoc(base) or ""
        if "Attributes:" in section:
            text = section.split("Attributes:", 1)[1]
            for name, doc in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE):
                docs[name] = " ".join(doc.split())
        comments = r"^    (\w+):[^#\n]*#\s*(.*)$"
        for name, doc in re.findall(comments, inspect.getsource(base), re.MULTILINE):
            docs.setdefault(name, doc)
    return docs


def _default(field: dataclasses.Field[Any]) -> str:
    if field.name in GROUPS:
        return "group"
    if field.default == MISSING:
        return "required"
    if field.default is not dataclasses.MISSING:
        return _shown(field.default)
    return ", ".join(f"{field.name}.{f.name}" for f in _nested(field)) or "{}"


def _shown(value: Any) -> str:
    """As it would be written in YAML."""
    if value is None:
        return "null"
    return str(list(value) if isinstance(value, tuple) else value)


def _nested(field: dataclasses.Field[Any]) -> tuple[dataclasses.Field[Any], ...]:
    assert field.default_factory is not dataclasses.MISSING
    value = field.default_factory()
    return dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
