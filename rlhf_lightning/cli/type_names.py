"""Types and defaults of settings in words, for users of the command line."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import annotated_types
from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from rlhf_lightning.config.schema import expand_user, local_or_hub

PLAIN = {int: "int", float: "float", str: "text", bool: "true or false", type(None): "null", Any: "anything"}
BOUNDS = (
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Ge, "ge", ">="),
    (annotated_types.Lt, "lt", "<"),
    (annotated_types.Le, "le", "<="),
)


def type_name(annotation: Any) -> str:
    """`float > 0`, `one of k1, k2, k3`, `list of text`, `int > 0 or null`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _with_bounds(type_name(arguments[0]), arguments[1:])
    if origin is typing.Literal:
        return f"one of {', '.join(map(value_name, arguments))}" if len(arguments) > 1 else value_name(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(type_name, arguments)))
    if origin is dict:
        return f"{{name: {type_name(arguments[1])}}}"
    if origin is tuple and Ellipsis not in arguments:
        return f"[{', '.join(map(type_name, arguments))}]"
    if origin in (list, tuple):
        return f"list of {_in_brackets(type_name(arguments[0]))}"
    return PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))


def value_name(value: Any) -> str:
    """A value as it is written in a command."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {value_name(item)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(value_name, value))}]"
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else repr(value) if value == "" else str(value)


def _with_bounds(name: str, metadata: Iterable[Any]) -> str:
    """A type's name with the bounds of its values."""
    constraints = [piece for entry in metadata for piece in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
    if any(isinstance(piece, AfterValidator) and piece.func is local_or_hub for piece in constraints):
        return "folder or Hub name"
    if any(isinstance(piece, AfterValidator) and piece.func is expand_user for piece in constraints):
        return "path"
    bounds = [f"{sign} {getattr(piece, key):g}" for piece in constraints for kind, key, sign in BOUNDS if isinstance(piece, kind)]
    lengths = {piece.min_length for piece in constraints if isinstance(piece, annotated_types.MinLen)}
    lengths |= {piece.max_length for piece in constraints if isinstance(piece, annotated_types.MaxLen)}
    texts = [" and ".join(bounds)] if bounds else []
    texts += [f"of length {' to '.join(map(str, sorted(lengths)))}"] if lengths else []
    texts += [piece.func.__name__.strip("_").replace("_", " ") for piece in constraints if isinstance(piece, AfterValidator)]
    return " ".join([name, *texts])


def _in_brackets(name: str) -> str:
    return f"({name})" if " or " in name or ", " in name else name
