"""YAML + dotted overrides -> frozen pydantic models; every mistake is one ConfigError."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mmrl.registry import nearest_hint

Tree = dict[str, Any]


class UserError(ValueError):
    """A mistake of the person at the keyboard: one clear line that names the thing and the cure."""


class ConfigError(UserError):
    """A mistake in a config: the key, what was expected, what came, the likely cure."""

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(f"{key}: {message}" if key else message)
        self.key = key
        self.reason = message


class Config(BaseModel):
    """Base of everything a config file can hold: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


ConfigT = TypeVar("ConfigT", bound=BaseModel)


def read_yaml(path: Path) -> Tree:
    """The mapping in a YAML file; ConfigError for a missing file, bad YAML or another shape."""
    if path.is_dir():
        held = ", ".join(sorted(file.name for file in path.glob("*.y*ml"))) or "no YAML file"
        raise ConfigError(f"{path}: a folder, not a config file; it holds {held}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such config file")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {_one_line(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(tree).__name__}")
    return tree


def parse_value(text: str) -> object:
    """The YAML value in an override; `1e-4` is a number though YAML 1.1 disagrees."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override value {text!r}: not valid YAML: {_one_line(error)}") from error
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def apply_overrides(tree: Tree, overrides: Sequence[str]) -> Tree:
    """A new tree with each `a.b=value` set; unknown keys are caught when it is parsed."""
    result = _copy(tree)
    for item in overrides:
        key, equals, text = item.partition("=")
        parts = key.strip().lstrip("-").split(".")
        if not equals or not all(parts):
            raise ConfigError(
                f"override {item!r}: expected key=value, such as train.optimizer.lr=1e-5"
            )
        node = result
        for part in parts[:-1]:
            child = node.setdefault(part, {})
            if child is None:
                child = node[part] = {}
            if not isinstance(child, dict):
                raise ConfigError(f"{key}: '{part}' is a value, not a section")
            node = child
        node[parts[-1]] = parse_value(text)
    return result


def parse(schema: type[ConfigT], tree: Mapping[str, Any]) -> ConfigT:
    """`tree` over the defaults of `schema`, frozen; ConfigError names the first wrong key.

    A section that a field has by default is filled up key by key, so that one key of it can be
    changed alone; null or {} takes a part of it away.
    """
    tree = over_defaults(schema, tree)
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        key, reason = _explain(schema, tree, error)
        raise ConfigError(reason, key=key) from error


def over_defaults(schema: type[BaseModel], tree: Mapping[str, Any]) -> Tree:
    """The tree with every section filled up by what its field's default object sets."""
    result = dict(tree)
    for name, value in tree.items():
        field = schema.model_fields.get(name)
        if field is None or not isinstance(value, Mapping) or not value:
            continue
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            filled = _over(default.model_dump(exclude_unset=True), value)
            result[name] = over_defaults(type(default), filled)
        elif get_origin(field.annotation) is not dict:
            section = _section(field.annotation, value)
            result[name] = over_defaults(section, value) if section else value
    return result


def _over(base: Mapping[str, Any], tree: Mapping[str, Any]) -> Tree:
    """Deep merge; {} stays {}, and sections of two kinds are not mixed."""
    kinds = {part["kind"] for part in (base, tree) if "kind" in part}
    if not tree or len(kinds) > 1:
        return dict(tree)
    both = {
        name: _over(base[name], value)
        for name, value in tree.items()
        if isinstance(value, Mapping) and isinstance(base.get(name), Mapping)
    }
    return {**base, **tree, **both}


def dump(model: BaseModel) -> str:
    """A config as YAML that `parse` reads back to the same model."""
    return yaml.safe_dump(model.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def numbers_as_floats(tree: Any) -> Any:
    """YAML 1.1 reads `1e-4` as text; turn such text into numbers all through a tree."""
    if isinstance(tree, dict):
        return {key: numbers_as_floats(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [numbers_as_floats(value) for value in tree]
    if isinstance(tree, str) and tree[:1] in "+-.0123456789" and tree[:1]:
        try:
            return float(tree)
        except ValueError:
            return tree
    return tree


def _explain(
    schema: type[BaseModel], tree: Mapping[str, Any], error: ValidationError
) -> tuple[str, str]:
    issues = sorted(error.errors(), key=lambda issue: issue["type"] != "extra_forbidden")
    issue = issues[0]
    location = _location(issue, tree)
    key = ".".join(location) or "config"
    cause = issue.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError) and cause.key:
        return ".".join([*location, cause.key]), cause.reason
    if issue["type"] == "extra_forbidden":
        known = _known_keys(schema, tree, location[:-1])
        return key, f"unknown key{nearest_hint(location[-1], known)}"
    if issue["type"] == "missing":
        return _missing(issues, tree)
    if issue["type"] in ("value_error", "assertion_error"):
        return key, issue["msg"].removeprefix("Value error, ")
    if issue["type"] == "literal_error":
        same = [one for one in issues if _location(one, tree) == location]
        known = [name for one in same for name in _literals(one)]
        return key, f"no such choice: {issue['input']!r}{nearest_hint(str(issue['input']), known)}"
    return key, f"expected {_expected(issue)}, got {issue['input']!r}"


def _location(issue: Mapping[str, Any], tree: Mapping[str, Any]) -> list[str]:
    """Keys that lead to what is wrong, as a user wrote them: without pydantic's tags of unions.

    The end of a `missing` location is a key that nobody wrote.
    """
    *path, last = issue["loc"] or ("",)
    written = [part for part in path if not _is_union_tag(part, tree, issue["loc"])]
    is_tag = issue["type"] != "missing" and _is_union_tag(last, tree, issue["loc"])
    return [str(part) for part in (*written, *(() if is_tag or last == "" else (last,)))]


def _missing(issues: Sequence[Mapping[str, Any]], tree: Mapping[str, Any]) -> tuple[str, str]:
    """All missing keys at once; of the kinds of a union only the first one's."""
    missing = [issue for issue in issues if issue["type"] == "missing"]
    sure = [one for one in missing if len(_location(one, tree)) == len(one["loc"])]
    keys = [".".join(_location(one, tree)) for one in sure or missing[:1]]
    verb = "these keys have" if len(keys) > 1 else "this key has"
    return ", ".join(keys), f"missing; {verb} no default"


def _literals(issue: Mapping[str, Any]) -> list[str]:
    return re.findall(r"'([^']*)'", issue.get("ctx", {}).get("expected", ""))


def _expected(issue: Mapping[str, Any]) -> str:
    names = {"int": "int", "float": "float", "bool": "bool", "string": "text", "model": "a section"}
    head = str(issue["type"]).split("_")[0]
    if str(issue["type"]).endswith(("_parsing", "_type", "_from_float")) and head in names:
        return names[head]
    return str(issue["msg"]).removeprefix("Input should be ")


def _is_union_tag(part: object, tree: Any, location: Sequence[Any]) -> bool:
    """pydantic puts the tag of a union into the location; a user never wrote it."""
    node: Any = tree
    for step in location:
        named = isinstance(node, Mapping) and step in node
        listed = isinstance(node, list) and isinstance(step, int) and step < len(node)
        if named or listed:
            node = node[step]
        elif step is part:
            return True
    return False


def _known_keys(schema: type[BaseModel], tree: Any, location: Sequence[str]) -> list[str]:
    node: type[BaseModel] | None = schema
    named_by_user = False
    for part in location:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
        if named_by_user:
            named_by_user = False
            continue
        field = node.model_fields.get(part) if node else None
        node = _section(field.annotation, tree) if field else None
        named_by_user = field is not None and get_origin(field.annotation) is dict
    return list(node.model_fields) if node else []


def _section(annotation: object, tree: Any) -> type[BaseModel] | None:
    """The model inside `X`, `X | None` or a union of sections that `kind` tells apart."""
    models = _models(annotation)
    kind = tree.get("kind") if isinstance(tree, Mapping) else None
    for model in models:
        field = model.model_fields.get("kind")
        if field is not None and kind in getattr(field.annotation, "__args__", ()):
            return model
    return models[0] if models else None


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models(part)]


def _copy(tree: Any) -> Any:
    return {k: _copy(v) for k, v in tree.items()} if isinstance(tree, dict) else tree


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
