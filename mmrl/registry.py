"""Names in config files to objects in code: one dict, exact names, found through entry points."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


class UnknownNameError(ValueError):
    """A name nobody registered. The message holds the nearest one and all known ones."""


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'? (known: a, b)`, or only the known names where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    guess = f"; did you mean '{near[0]}'?" if near else ""
    return f"{guess} (known: {', '.join(names)})"


def load_file(path: Path) -> object:
    """Import a Python file as a module of its own (its code runs, as any import does)."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such Python file")
    name = f"mmrl_file_{path.stem}_{abs(hash(str(path.resolve())))}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Registry(Generic[T]):
    """Decorator in, name out. Modules that register are those of an entry-point group."""

    def __init__(self, group: str, noun: str) -> None:
        self.group = group
        self.noun = noun
        self._items: dict[str, T] = {}
        self._discovered = False
        self._lock = threading.RLock()

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a class or a function under `name`; a name has one owner."""

        def add(item: T) -> T:
            taken = self._items.get(name)
            if taken is not None and taken is not item:
                raise ValueError(f"{self.noun} '{name}' is registered twice: {taken} and {item}")
            self._items[name] = item
            return item

        return add

    def discover(self) -> None:
        """Import every module that declares itself in the entry-point group, once."""
        with self._lock:  # another thread waits for the names; a module that asks again does not
            if self._discovered:
                return
            self._discovered = True
            for entry in entry_points(group=self.group):
                entry.load()

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self.discover()
        return sorted(self._items)

    def get(self, name: str) -> T:
        """The object filed under `name`; UnknownNameError with the nearest name otherwise."""
        self.discover()
        if name not in self._items:
            hint = nearest_hint(name, self._items)
            raise UnknownNameError(f"no {self.noun} named '{name}'{hint}")
        return self._items[name]


@dataclass(frozen=True)
class Listed:
    """A registered name read from the source that declares it."""

    name: str
    summary: str
    """First line of the docstring."""
    file: Path


def catalogue(group: str) -> list[Listed]:
    """All names of an entry-point group, read from source files: nothing is imported or run."""
    found: dict[str, Listed] = {}
    for entry in entry_points(group=group):
        for file in _source_files(entry.module):
            found |= {item.name: item for item in _registered(file)}
    return [found[name] for name in sorted(found)]


def _source_files(module: str) -> list[Path]:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return []
    origin = Path(spec.origin)
    return sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]


def _registered(file: Path) -> list[Listed]:
    items = []
    text = file.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)) if ".register(" in text else ():
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            summary = (ast.get_docstring(node) or "").split("\n")[0]
            names = [name for mark in node.decorator_list if (name := _registered_name(mark))]
            items += [Listed(name, summary, file) for name in names]
    return items


def _registered_name(mark: ast.expr) -> str | None:
    """`name` of a decorator `@anything.register("name")`."""
    match mark:
        case ast.Call(func=ast.Attribute(attr="register"), args=[ast.Constant(value=str(name))]):
            return name
        case _:
            return None
