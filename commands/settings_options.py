"""Options from settings dataclasses: a field is an option, its type the choices, its docstring the help."""

import ast
import functools
import inspect
import itertools
import json
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from ..errors import InputError
from ..files import read_text
from ..published import PREFIX, run_folder
from . import show

Panels = Mapping[str, Sequence[str]]
"""Heading of `--help` -> fields under it. Fields that are not named are no options."""


def with_options(
    *, panels: Panels | Mapping[str, Panels] | None = None, names: Mapping[str, str] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Decorate a command: options take the place of every parameter that is annotated with a settings dataclass.

    A parameter `settings: ExtractOptions` becomes one option per field, and the command gets the dataclass. A parameter
    `given: Annotated[dict, TrainSettings]` becomes the same options without defaults, and the command gets only
    what was typed. Every command also gets --config, --quiet and --verbose.

    Args:
        panels: which fields are options, by heading; or that by parameter of the command, where two classes share
            names of fields; None: all, under the usual heading.
        names: field -> option, such as `kind` -> `--from`, where they differ.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)
        plain: list[inspect.Parameter] = []
        options: list[inspect.Parameter] = []
        built: dict[str, tuple[type, bool, list[str]]] = {}
        for name, parameter in signature.parameters.items():
            cls, only_given = _settings_of(parameter.annotation)
            if cls is None:
                plain.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
                continue
            own = panels.get(name, panels) if panels else None
            added = _options(cls, own, names or {}, only_given=only_given)  # type: ignore[arg-type]  # Panels by now
            built[name] = cls, only_given, [each.name for each in added]
            options += added

        @functools.wraps(function)
        def command(**typed: Any) -> None:
            typed.pop("config")
            show.configure(quiet=typed.pop("quiet"), verbose=typed.pop("verbose"))
            typed.update({name: run_named(typed[name]) for name in RUN_OPTIONS if name in typed})
            for name, (cls, only_given, taken) in built.items():
                values = {
                    field: _value(cls, field, typed.pop(field), (names or {}).get(field, f"--{field}"))
                    for field in taken
                }
                # a flag that was left out is not given, nor is an option
                given = {
                    field: value
                    for field, value in values.items()
                    if value is not None and not (value is False and getattr(cls, field, None) is False)
                }
                typed[name] = given if only_given else cls(**given)
            function(**typed)

        parameters = [*plain, *options, *_COMMON]
        parameters.sort(key=lambda each: not _is_argument(each))  # arguments first, as they are typed
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return decorate


RUN_OPTIONS = ("run", "from_", "weights")
"""Parameters of commands that take the folder of a run, or several."""


def run_named(typed: Any) -> Any:
    """What was typed behind such an option; in place of `hub:NAME` the folder of that published model's run."""
    if isinstance(typed, list):
        return [run_named(each) for each in typed]
    if not isinstance(typed, str | Path) or not str(typed).startswith(PREFIX):
        return typed
    return type(typed)(run_folder(str(typed)))


def field_docs(cls: type) -> dict[str, str]:
    """The docstring under each field of a dataclass and its bases, as one line each."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not is_dataclass(base):
            continue
        body = _classes(inspect.getfile(base))[base.__name__].body
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                docs[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return docs


@functools.cache
def _classes(path: str) -> dict[str, ast.ClassDef]:
    """Classes of a module by name; its source is parsed once."""
    return {node.name: node for node in ast.parse(Path(path).read_text()).body if isinstance(node, ast.ClassDef)}


def _settings_of(annotation: Any) -> tuple[type | None, bool]:
    """(dataclass that a parameter stands for or None, whether the command wants only what was typed)."""
    if is_dataclass(annotation) and isinstance(annotation, type):
        return annotation, False
    if get_origin(annotation) is Annotated and is_dataclass(get_args(annotation)[1]):
        cls = get_args(annotation)[1]
        return (cls, True) if isinstance(cls, type) else (None, False)
    return None, False


def _is_argument(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    return get_origin(annotation) is Annotated and isinstance(get_args(annotation)[1], typer.models.ArgumentInfo)


def _options(
    cls: type, panels: Panels | None, names: Mapping[str, str], *, only_given: bool
) -> list[inspect.Parameter]:
    """One keyword parameter per field, annotated as Typer wants it."""
    docs, hints = field_docs(cls), typing.get_type_hints(cls)
    known = {each.name: each for each in fields(cls)}
    shown = {name: panel for panel, of_panel in (panels or {}).items() for name in of_panel if name in known}
    parameters = []
    for name in shown if panels else known:
        field, kind = known[name], _typed(hints[name])
        default = None if field.default is MISSING else field.default
        text, is_flag = docs.get(name, ""), kind is bool and not default
        if (only_given or kind is not hints[name]) and not is_flag:
            shown_default = _default_text(default)
            text += f" Default: {shown_default}." if shown_default and "default" not in text.lower() else ""
            default, show_default = None, False
        else:
            show_default = default not in (None, False)
        option = _option(name, names, text, shown.get(name), show_default, is_flag=is_flag)
        if default is None and type(None) not in get_args(kind):
            kind = kind | None
        parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        parameters.append(parameter.replace(annotation=Annotated[kind, option]))
    return parameters


def _option(
    name: str, names: Mapping[str, str], text: str, panel: str | None, default: bool, *, is_flag: bool = False
) -> Any:
    declared = [names.get(name, f"--{name.replace('_', '-')}")]
    if not is_flag and not declared[0].startswith("--"):
        declared = [f"--{declared[0]}"]
    needs_name = is_flag or name in names
    return typer.Option(*(declared if needs_name else ()), help=text, show_default=default, rich_help_panel=panel)


def _default_text(default: object) -> str:
    """How the default is shown where the option itself has none."""
    if default is None or default == () or default == {}:
        return ""
    if isinstance(default, tuple):
        return ("x" if all(isinstance(each, int) for each in default) else ",").join(map(str, default))
    return str(default)


def _typed(hint: Any) -> Any:
    """The type that Typer reads for a field: text where it knows none."""
    inner = _inner(hint)
    if inner is None or get_origin(inner) is tuple:
        return str | None  # of int | Literal["all"] and the like the dataclass parses text itself
    return list[str] | None if get_origin(inner) in (dict, Mapping) else hint


def _inner(hint: Any) -> Any:
    """What a field may hold besides None; None where that is of several types."""
    is_union = get_origin(hint) in (typing.Union, types.UnionType)
    inner = [each for each in get_args(hint) if each is not type(None)] if is_union else [hint]
    return inner[0] if len(inner) == 1 else None


def _value(cls: type, name: str, typed: Any, option: str) -> Any:
    """What was typed, in the type of the field."""
    inner = _inner(typing.get_type_hints(cls)[name])
    if typed is None or inner is None:
        return typed
    if get_origin(inner) is tuple:
        if get_args(inner) == (int, int):
            from ..extract.options import parse_pair

            return parse_pair(typed, option=option, separator="x", example="398x224 (width x height)")
        return tuple(part.strip() for part in typed.split(",") if part.strip())
    if isinstance(typed, list) and get_origin(inner) is not list:
        return named_values_of(typed, option=option)
    return typed


def named_values_of(pairs: Sequence[str], *, option: str) -> dict[str, Any]:
    """Settings from `NAME=VALUE`; a value that is no JSON is text.

    Raises:
        InputError: no `=`.
    """
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"{option} is not usable", got=pair, wanted="NAME=VALUE, such as bigru.hidden=96")
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a TOML file the defaults of a command's options; what is typed comes before them."""
    if path is None:
        return None
    try:
        document = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML", got=error, wanted="option = value, one a line") from None
    options = {
        option.lstrip("-").replace("-", "_"): each.name for each in context.command.params for option in each.opts
    }
    values = {}
    for key, value in document.items():
        name = options.get(key.replace("-", "_"))
        if name is None or name == "config":
            wanted = ", ".join(sorted(set(options)))
            raise InputError(f"{path}: no such option: {key}", wanted=wanted, cure=f"bas {context.info_name} --help")
        values[name] = value
    context.default_map = {**(context.default_map or {}), **values}
    return path


def _common(name: str, default: object, kind: Any, *flags: str, **how: Any) -> inspect.Parameter:
    option = typer.Option(*flags, rich_help_panel="General", **how)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


_COMMON = [
    _common(
        "config",
        None,
        Path | None,
        metavar="FILE.toml",
        callback=_read_config,
        is_eager=True,  # before the options whose defaults it changes
        help="Read options from this file; what is typed comes before it.",
    ),
    _common("quiet", False, bool, "-q", "--quiet", help="No progress."),
    _common("verbose", False, bool, "-v", "--verbose", help="Tracebacks of faults, too."),
]
