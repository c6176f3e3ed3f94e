"""The documents say what is true: links lead somewhere, commands parse, keys and names are complete, code compiles and works."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import msgspec
import numpy as np
import pytest
import typer

from headway.api.config import TuneConfig, configured
from headway.cli import commands
from headway.cli.entry import application
from headway.compress.techniques.contract import Technique
from headway.discovery import names
from headway.load import arrivals
from headway.quality import METRICS
from headway.records import Objective, parse_objective
from headway.testing.arrivals import ArrivalContract, Process
from headway.testing.techniques import TechniqueContract

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CONCEPTS = (ROOT / "docs" / "concepts.md").read_text("utf-8")
EXTENDING = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def command_lines(page: Path) -> list[list[str]]:
    """Words of every command line of ``headway`` in the page's shell blocks, without what precedes and follows it."""
    found = []
    for code in blocks(page, "sh"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words[:1] == ["headway"]:
                ends = [at for at, word in enumerate(words) if word in (">", "|", "&")]
                found.append(words[1 : ends[0]] if ends else words[1:])
    return found


def command(name: str) -> Any:
    return cast(Any, typer.main.get_command(application)).get_command(None, name)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(BLOCK.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if file.suffix != ".png":  # pictures are drawn by benchmarks/tables.py
            assert file.exists(), f"{page.name}: {target} leads nowhere"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target} names no heading of {file.name}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_command_lines_parse(page: Path) -> None:
    for words in command_lines(page):
        assert words[0] in names(commands), f"{page.name}: headway {words[0]} does not exist"
        made = command(words[0])
        if words[0] == "tune" and len(words) == 1:
            continue  # everything in headway.toml
        made.make_context(words[0], words[1:])  # raises a usage error for an option that does not exist
        if "--slo" in words:
            assert parse_objective(words[words.index("--slo") + 1])


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_and_options_named_in_the_text_exist(page: Path) -> None:
    text = BLOCK.sub("", page.read_text("utf-8"))
    for line in re.findall(r"`headway ([a-z]+[^`]*)`", text):
        words = line.split()
        assert words[0] in names(commands), f"{page.name}: headway {words[0]} does not exist"
        known = {option for parameter in command(words[0]).params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert not {word for word in words if word.startswith("--")} - known, f"{page.name}: {line}"
    every = {
        option for name in names(commands) for parameter in command(name).params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for option in re.findall(r"`(--[a-z][a-z-]*)", text):
        assert option in {*every, "--help"}, f"{page.name}: no command has the option {option}"


def test_every_command_is_in_the_tutorial_or_the_readme() -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text("utf-8") + (ROOT / "README.md").read_text("utf-8")
    assert [name for name in names(commands) if f"headway {name}" not in text] == []


def test_every_key_of_the_configuration_is_documented() -> None:
    table = CONCEPTS.split("## headway.toml")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(rows) == sorted(field.name for field in msgspec.structs.fields(TuneConfig))


def test_every_metric_is_documented_in_the_words_of_the_code() -> None:
    table = CONCEPTS.split("## Metrics")[1].split("\n## ")[0]
    assert dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", table, re.MULTILINE)) == dict(METRICS)


def test_every_bound_of_an_objective_is_documented_and_parses() -> None:
    table = CONCEPTS.split("## Objective")[1].split("\n## ")[0]
    bounds = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    parsed = parse_objective(", ".join(bounds))
    unset = {field for field in Objective.__struct_fields__ if getattr(parsed, field) is None}
    assert unset == set() and parsed.arrivals != Objective().arrivals
    assert all(f"`{name}`" in table for name in arrivals().present)


def test_exit_codes_of_the_text_are_those_of_the_errors() -> None:
    table = CONCEPTS.split("## Exit codes")[1].split("\n## ")[0]
    assert re.findall(r"^\| (\d+) \|", table, re.MULTILINE) == ["0", "1", "2", "3", "130"]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_blocks_compile(page: Path) -> None:
    for number, code in enumerate(blocks(page, "python")):
        compile(code, f"{page.name}, block {number}", "exec")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_toml_blocks_are_valid_options(page: Path, tmp_path: Path) -> None:
    for code in blocks(page, "toml"):
        (tmp_path / "headway.toml").write_text(code)
        assert configured({}, tmp_path).models


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_a_page_is_for_strangers(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not re.search(r"/(work|home|root|tmp|Users)/", text), "a path of somebody's machine"
    assert not re.search(r"[\U0001F300-\U0001FAFF\u2600-\u27BF]", text), "pictures are not words"


def module(name: str, start: str, folder: Path) -> ModuleType:
    """The code block of ``docs/extending.md`` that starts with ``start``, imported from a file."""
    code = next(block for block in blocks(EXTENDING, "python") if block.startswith(start))
    file = folder / f"{name}.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


class TestTheTechniqueInTheDocs(TechniqueContract):
    @pytest.fixture(scope="class")
    @classmethod
    def technique(cls, tmp_path_factory: pytest.TempPathFactory) -> Technique:
        return cast(Technique, module("round_weights", '"""Rounds float32', tmp_path_factory.mktemp("technique")))


class TestTheArrivalProcessInTheDocs(ArrivalContract):
    @pytest.fixture(scope="class")
    @classmethod
    def process(cls, tmp_path_factory: pytest.TempPathFactory) -> Process:
        return cast(Process, module("smooth", '"""Arrivals of four', tmp_path_factory.mktemp("arrivals")))


def test_the_data_block_of_the_tutorial_writes_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = next(block for block in blocks(ROOT / "docs" / "tutorial.md", "python") if "np.savez" in block)
    exec(compile(code, "tutorial", "exec"), {})
    with np.load("val.npz") as arrays:
        assert arrays["pixels"].shape == (500, 64) and arrays["label"].shape == (500,)
