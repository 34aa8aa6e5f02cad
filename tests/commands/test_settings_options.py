"""Options made from settings dataclasses: names, choices, help, defaults, files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from bas.commands.settings_options import field_docs, with_options
from bas.errors import InputError

Call = Callable[..., tuple[int, Any]]


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base."""

    epochs: int = 20
    """Maximum number
    of epochs."""


@dataclass(frozen=True, kw_only=True)
class Settings(Base):
    """Settings of all kinds."""

    kind: Literal["hann", "mean"] | None = None
    """How clips are blended."""
    size: tuple[int, int] | None = None
    """Width x height."""
    views: tuple[str, ...] = ("identity",)
    """Views, separated by commas."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Named values."""
    lr: float = 8e-4
    """Peak learning rate."""
    transpose: bool = False
    """Whether files hold (channels, rows)."""
    hidden: int = 3
    """No option."""


PANELS = {"Main": ("epochs", "kind", "size", "views"), "Rest": ("values", "lr", "transpose")}


def call_with(annotation: Any) -> Call:
    """Types arguments; gives the exit code, and what the command got."""
    got: list[Any] = []

    def command(name: str, settings: Any) -> None:
        got.append({"name": name, **(settings if isinstance(settings, dict) else vars(settings))})

    command.__annotations__ |= {"name": Annotated[str, typer.Argument()], "settings": annotation}
    app = typer.Typer()
    app.command()(with_options(panels=PANELS, names={"kind": "--blend", "values": "--set"})(command))

    def run(*arguments: str) -> tuple[int, Any]:
        result = CliRunner().invoke(app, ["x", *arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, got[-1] if got else result.output

    return run


ALL = call_with(Settings)
GIVEN = call_with(Annotated[dict[str, Any], Settings])
BOTH = pytest.mark.parametrize("call", [ALL, GIVEN], ids=["all", "given"])


@BOTH
def test_what_was_typed_comes_in_the_type_of_the_field(call: Call) -> None:
    typed = ("--epochs", "7", "--blend", "mean", "--size", "398x224", "--views", "identity, hflip")
    code, got = call(*typed, "--set", "a.b=3", "--set", "c=text", "--lr", "0", "--transpose")
    assert code == 0
    assert {name: got[name] for name in ("epochs", "kind", "size", "views", "values", "lr", "transpose")} == {
        "epochs": 7,
        "kind": "mean",
        "size": (398, 224),
        "views": ("identity", "hflip"),
        "values": {"a.b": 3, "c": "text"},
        "lr": 0.0,
        "transpose": True,
    }


def test_what_was_left_out_is_not_given() -> None:
    assert ALL() == (0, {"name": "x", **vars(Settings())})
    assert GIVEN() == (0, {"name": "x"})


@BOTH
@pytest.mark.parametrize(
    "arguments", [("--blend", "none"), ("--epochs", "many"), ("--hidden", "4"), ("--lr", "fast"), ("--kind", "mean")]
)
def test_a_choice_that_there_is_not_ends_with_code_2(call: Call, arguments: tuple[str, ...]) -> None:
    assert call(*arguments)[0] == 2


@BOTH
@pytest.mark.parametrize("arguments", [("--size", "398"), ("--size", "axb"), ("--set", "a")])
def test_text_that_is_no_value_is_an_input_error(call: Call, arguments: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=f"{arguments[0][:5]}"):
        call(*arguments)


@BOTH
def test_a_file_of_options_comes_before_defaults_and_after_what_is_typed(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('epochs = 5\nblend = "hann"\nsize = "10x20"\nset = ["a=1"]\n')
    code, got = call("--config", str(path), "--epochs", "9")
    assert code == 0
    assert (got["epochs"], got["kind"], got["size"], got["values"]) == (9, "hann", (10, 20), {"a": 1})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))  # a Windows editor
    assert call("--config", str(path), "--epochs", "9")[1] == got
    for text, message in (("epoch = 5", "no such option: epoch"), ("epochs = ", "not valid TOML")):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            call("--config", str(path))
    with pytest.raises(InputError, match="cannot be read"):
        call("--config", str(tmp_path / "absent.toml"))


def test_help_is_the_docstring_under_the_field() -> None:
    assert field_docs(Settings)["epochs"] == "Maximum number of epochs."
    code, text = call_with(Settings)("--help")
    assert code == 0
    assert "Maximum number of epochs." in " ".join(text.replace("│", "").split())
    assert "--hidden" not in text
