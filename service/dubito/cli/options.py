"""The options of a command from the fields of a dataclass.

Those of a request are made of its fields as `dubito.asked` declares them: an option has the name,
the type, the default and the description of its field. A command gets what was given, by name: it
lays it over a file, or makes an order of it, whose refusals are those of HTTP.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from types import NoneType
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo

from dubito.asked import CalibratedOptions
from dubito.engine.calling.sampling import SitesName, read_sites
from dubito.errors import InputError

Chosen: TypeAlias = Mapping[str, Any]
"""Fields that were given as options, by name."""

Command: TypeAlias = Callable[..., None]
_OF_ALL = frozenset(field.name for field in dataclasses.fields(CalibratedOptions))
SitesOption: TypeAlias = SitesName | list[int | str]
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def request_options(
    schema: type[object], *, but: Iterable[str] = ()
) -> Callable[[Command], Command]:
    """Give a command an option for each field of a request, in the place of its `chosen`.

    Args:
        schema: a dataclass of `dubito.asked`.
        but: fields that are no options.
    """
    fields: dict[str, FieldInfo] = schema.__pydantic_fields__  # type: ignore[attr-defined]
    offered = {name: field for name, field in fields.items() if name not in set(but)}

    def receive(values: Chosen) -> Chosen:
        return {k: _read(k, v, offered[k]) for k, v in values.items() if v is not None}

    parameters = [_parameter(name, field) for name, field in offered.items()]
    return lambda command: _spread(command, parameters, receive, "chosen")


def declared_options(schema: type[object], *, into: str = "chosen") -> Callable[[Command], Command]:
    """Give a command the options that the annotations of a dataclass are; none is left out.

    Args:
        schema: its fields, those without a default first.
        into: the argument of the command that gets them, by name.
    """
    hints = get_type_hints(schema, include_extras=True)
    parameters = [
        inspect.Parameter(
            field.name,
            _KEYWORD,
            default=inspect.Parameter.empty
            if field.default is dataclasses.MISSING
            else field.default,
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(schema)  # type: ignore[arg-type]
    ]
    return lambda command: _spread(command, parameters, lambda values: values, into)


def whole_numbers(name: str, text: str) -> list[int]:
    """Numbers from a text with commas.

    Raises:
        InputError: something else is among them.
    """
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(
            f"`{name}` expects whole numbers with commas, got '{text}': write 8,16,32"
        ) from error


def _spread(
    command: Command,
    spread: list[inspect.Parameter],
    receive: Callable[[Chosen], Chosen],
    into: str,
) -> Command:
    """A command with some parameters in the place of one, for typer to read."""

    @wraps(command)
    def run(**values: object) -> None:
        chosen = receive({parameter.name: values.pop(parameter.name) for parameter in spread})
        command(**values, **{into: chosen})

    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        declared = parameter.replace(annotation=hints[parameter.name], kind=_KEYWORD)
        parameters.extend(spread if parameter.name == into else [declared])
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """A field as an option, None where it is not given."""
    kind, metavar, default, notes = _kind(field), None, field.default, [field.description or ""]
    if get_origin(kind) is Literal and name in _OF_ALL:
        kind, metavar = str, f"[{'|'.join(get_args(kind))}]"  # refused in the words of HTTP
    elif kind is SitesOption:
        kind, metavar = str, "all|last|SITES"
        notes.append("Separated by commas.")
    elif get_origin(kind) is list:
        notes.append("Separated by commas.")
        kind, default = str, ",".join(map(str, default)) if isinstance(default, list) else None
    if isinstance(default, int | float | str) and not isinstance(default, bool):
        notes.append(f"Default: {default}.")
    option = typer.Option(
        *([f"-{name}"] if len(name) == 1 else []),
        f"--{name.replace('_', '-')}",  # named, so that no flag has a --no-...
        help=" ".join(notes),
        metavar=metavar,
        show_default=False,
    )
    hint = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, _KEYWORD, default=None, annotation=hint)


def _kind(field: FieldInfo) -> Any:
    """The type of a field that is given."""
    annotation = field.annotation
    if get_origin(annotation) in (list, Literal):
        return annotation
    if SitesName in get_args(annotation):
        return SitesOption
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not NoneType]
    assert len(kinds) == 1
    return kinds[0]


def _read(name: str, value: Any, field: FieldInfo) -> object:
    """Return the value of a field as the schema takes it; a list is written with commas."""
    kind = _kind(field)
    if kind is SitesOption:
        return read_sites(value)
    if get_origin(kind) is not list:
        return value
    return whole_numbers(name, value) if get_args(kind) == (int,) else value.split(",")
