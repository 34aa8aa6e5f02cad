"""Every command says what it does and shows how it is typed; the guide names them all."""

import re
import shlex
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.core

from bas import cli

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("guide/*.md"))]


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(command, typer.core.TyperGroup):
        for part, child in command.commands.items():
            yield from commands(child, f"{name} {part}")
    else:
        yield name, command


ALL = dict(commands(typer.main.get_command(cli.app), "bas"))


def test_there_are_commands() -> None:
    assert {"bas demo", "bas extract", "bas cache info", "bas data check", "bas report"} <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_command_has_an_example_of_itself_and_a_place_in_the_guide(name: str) -> None:
    assert (ALL[name].epilog or "").startswith(f"Example: {name} ")
    guide = "\n".join(path.read_text() for path in PAGES)
    assert re.search(rf"(`|^|/|&& ){name}\b", guide, re.MULTILINE)


@pytest.mark.parametrize("name", ALL)
def test_an_example_names_options_that_exist(name: str) -> None:
    options = {option for parameter in ALL[name].params for option in parameter.opts}
    typed = [word for word in (ALL[name].epilog or "").split() if word.startswith("--")]
    assert set(typed) <= options
    assert ALL[name].help


def typed_in(path: Path) -> Iterator[list[str]]:
    """Words of every `bas` command in the shell blocks of a page, after the program's name."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", path.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.shlex(line, posix=True, punctuation_chars="&|;>")
            words.whitespace_split = True
            for is_end, part in groupby(words, lambda word: set(word) <= set("&|;>")):
                found = list(part)
                program = next((n for n, word in enumerate(found) if Path(word).name == "bas"), None)
                if not is_end and program is not None and "install" not in found[:program]:
                    yield found[program + 1 :]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_a_page_tells_to_type_can_be_typed(path: Path) -> None:
    for typed in typed_in(path):
        depth = 2 if f"bas {' '.join(typed[:2])}" in ALL else 1
        command = ALL[f"bas {' '.join(typed[:depth])}"]
        if not {"--help", "-h", "--version"} & set(typed):
            command.make_context("bas", typed[depth:])  # raises where an option, a choice or an argument does not fit


@pytest.mark.parametrize("typed", [[], ["cache", "push"], ["extract", "--help"]])
def test_commands_that_are_not_typed_stand_there_with_the_same_help_line(typed: list[str]) -> None:
    shown = dict(commands(typer.main.get_command(cli.make_app(typed)), "bas"))
    assert {name: command.help for name, command in shown.items()} == {name: each.help for name, each in ALL.items()}
    named = " ".join(["bas", *(word for word in typed if word[0] != "-")])
    has_options = {name for name, command in shown.items() if command.params}
    assert has_options == {named} & set(ALL)
