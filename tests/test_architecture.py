"""ARCHITECTURE.md's table is the law: rooms import only what their row says, at the top of the file, and never in a circle."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "headway"
BANNED_NAMES = {"utils", "helpers", "helper", "common", "manager", "handler", "misc"}


def table() -> dict[str, set[str]]:
    """The room table as ``{room: rooms it may import}``."""
    rows: dict[str, set[str]] = {}
    for line in (ROOT / "ARCHITECTURE.md").read_text("utf-8").splitlines():
        match = re.match(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", line)
        if match:
            rows[match.group(1)] = set(re.findall(r"`(\w+)`", match.group(2)))
    return rows


ROOMS = table()


def files() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE)


def imports(path: Path) -> list[tuple[str, bool]]:
    """Rooms that a file imports, each with whether the import stands at the top level of the file."""
    tree = ast.parse(path.read_text("utf-8"))
    top = {id(node) for node in tree.body}
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            top |= {id(inner) for inner in node.body}
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports must be absolute"
            names = [f"headway.{alias.name}" for alias in node.names] if node.module == "headway" else [node.module or ""]
        found += [(name.split(".")[1], id(node) in top) for name in names if name.startswith("headway.")]
    return found


def test_the_table_names_every_room() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == set(ROOMS)


def test_the_rooms_form_no_circle() -> None:
    done: set[str] = set()
    while len(done) < len(ROOMS):
        ready = {room for room, allowed in ROOMS.items() if room not in done and allowed <= done}
        assert ready, f"a circle among {sorted(set(ROOMS) - done)}"
        done |= ready


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_follow_the_table(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0]
    for target, at_top in imports(path):
        if target == "__version__":
            continue
        assert target == room or target in ROOMS[room], f"{room} must not import {target}"
        assert at_top, f"{path.name} hides an import of headway.{target}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_have_a_purpose(path: Path) -> None:
    assert path.stem not in BANNED_NAMES
    assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), "a module docstring says what the file is for"
