"""YAML that every reader takes as it was meant: a string that some take for something else (``y``, ``1e3``, ``0o7``) is quoted. Needs PyYAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from headway import __version__

PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]{2,}")
WORDS = frozenset(("yes", "off", "true", "false", "null", "nan", "inf"))


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]  # PyYAML brings no types
    """Quotes strings; repeats what occurs twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = PLAIN.fullmatch(text) is not None and text.lower() not in WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _text)


def write_yaml(path: Path, document: Mapping[str, Any], target: str) -> None:
    """A document, after a line that says which target wrote it."""
    head = f"# Made by headway {__version__}, export --to {target}.\n"
    text = yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    path.write_text(head + text, "utf-8")
