"""Every key of a config with its type, its default and what its field says, from the classes."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

Sections = tuple[type[BaseModel], ...]
WIDTH = 88
"""Characters of a line of explanation."""


@dataclass(frozen=True)
class Key:
    """One key of a config."""

    name: str
    type: str
    shown: str
    """Its default as a config would have it; empty where the key must be given."""
    default: Any
    about: str
    sections: Sections
    """The models that its value may be; none for a plain value."""


def keys_of(schema: type[BaseModel], default: BaseModel | None = None) -> list[Key]:
    """The keys of a section in the order of its class; `default`: what it is if nobody says."""
    schema.model_rebuild()  # types that stand below their use
    about = _docstrings(schema)
    return [
        _key(name, field, about.get(name, ""), default)
        for name, field in schema.model_fields.items()
    ]


def lines_of(schema: type[BaseModel]) -> list[str]:
    """What `mmrl keys` prints: a line a key, what it means, and the keys of a section further in.

    Of a section that may be of several kinds all are listed, each under its class, once.
    """
    return list(_lines(schema, None, "", set()))


def _lines(
    schema: type[BaseModel], default: BaseModel | None, indent: str, listed: set[Sections]
) -> Iterator[str]:
    for key in keys_of(schema, default):
        yield f"{indent}{key.name}: {key.type}{f' = {key.shown}' if key.shown else ' (required)'}"
        yield from (f"{indent}    # {line}" for line in textwrap.wrap(key.about, WIDTH))
        if len(key.sections) == 1:
            inner = key.default if isinstance(key.default, BaseModel) else None
            yield from _lines(key.sections[0], inner, indent + "  ", listed)
        elif key.sections in listed:
            yield f"{indent}    # sections as above: {', '.join(_names(key.sections))}"
        elif key.sections:
            listed.add(key.sections)
            for section in key.sections:
                yield f"{indent}  [{section.__name__}]"
                yield from _lines(section, None, indent + "    ", listed)


def _key(name: str, field: FieldInfo, about: str, section: BaseModel | None) -> Key:
    """The default is that of the section around it, or the field's own."""
    if section is not None:
        default = getattr(section, name)
    else:
        default = None if field.is_required() else field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        sections: Sections = (type(default),)
        shown = "as below"
    else:
        sections = tuple(dict.fromkeys(_models(field.annotation)))
        shown = "" if section is None and field.is_required() else _yaml(default)
    told = about or _summary(sections[0] if len(sections) == 1 else field.annotation)
    return Key(name, _type(field.annotation, bounds=field.metadata), shown, default, told, sections)


def _summary(annotation: Any) -> str:
    """First line of a class' own docstring."""
    if not inspect.isclass(annotation) or annotation.__module__ == "builtins":
        return ""
    return (annotation.__doc__ or "").strip().split("\n")[0]


def _names(sections: Sections) -> list[str]:
    return [section.__name__ for section in sections]


def _yaml(value: Any) -> str:
    plain = to_jsonable_python(value, inf_nan_mode="constants")
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=10**6)
    return text.removesuffix("...\n").strip()


def _type(annotation: Any, bounds: list[Any] | None = None) -> str:
    """`int >= 1`, `text`, `one of a, b`, `a section`, and their unions."""
    told = _bounds(bounds or [])
    arguments, origin = get_args(annotation), get_origin(annotation)
    if hasattr(annotation, "__metadata__"):
        return _type(arguments[0], list(annotation.__metadata__)) + told
    if str(origin) == "typing.Literal":
        return " | ".join(map(str, arguments))
    if origin in (list, tuple, dict):
        inner = dict.fromkeys(_type(one) for one in arguments if one is not Ellipsis)
        shape = "mapping to" if origin is dict else "list of"
        return f"{shape} {list(inner)[-1]}"
    if arguments:
        return " | ".join(dict.fromkeys(_type(one) for one in arguments)) + told
    if inspect.isclass(annotation) and annotation.__module__ != "builtins":
        return "section"
    names = {str: "text", type(None): "null"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation))) + told


def _bounds(metadata: list[Any]) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    told = [
        f"{sign} {getattr(bound, name)}"
        for bound in metadata
        for name, sign in signs.items()
        if getattr(bound, name, None) is not None
    ]
    return f" {', '.join(told)}" if told else ""


def _models(annotation: Any) -> list[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


@cache
def _docstrings(schema: type[BaseModel]) -> dict[str, str]:
    """The text that stands under a field in its class, or in a class that it inherits from."""
    found: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        if issubclass(cls, BaseModel) and cls is not BaseModel:
            found |= _written_under(cls)
    return found


def _written_under(cls: type[BaseModel]) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):  # a class made of a function has none
        return {}
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.ClassDef)
    found = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
    return found
