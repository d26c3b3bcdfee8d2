"""The controller's state as JSON, for a record that begins while the daemon runs.

    Snapshot(controller) ──> nodes() ──> lines of the record ──> restored ──> Controller

    [class, {attribute: value}]    an object; its class without "ifdefault."
    ["list" | "set" | …, value …]  a container; ["deque", maxlen, value …]
    ["dict" | "counter", [key, value] …]
    {"node": number}               as a value: a node before; others are as JSON has them
    [value …]                      as a value: a tuple

Rules: a Snapshot copies what the next turn may change, which is little; all else is frozen, and is
encoded afterwards, node by node, between turns. Objects that share something share it again. What
is restored are objects of the pure packages and the controller's alone: none of their functions is
called, so that a record from a stranger can't do more than an event in it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from math import isfinite
from typing import Any, Protocol

from ifdefault.daemon.controller.controller import Controller
from ifdefault.ipc.codec import DecodeError
from ifdefault.model.config import NotifyConfig
from ifdefault.model.many import Many

_PACKAGES = ("daemon.controller.", "dns.", "health.", "model.", "plan.")
_OURS = "ifdefault."
_ATOMS = frozenset({str, int, float, bool, bytes, type(None)})
_CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "set": set,
    "frozenset": frozenset,
    "many": Many,
}
_NAMES: dict[Any, str] = {list: "list", set: "set", frozenset: "frozenset", Many: "many"}
_FLOATS = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}
NODE = "node"


class Redact(Protocol):
    def text(self, text: str) -> str:
        """A text without secrets."""

    def notify(self, notify: NotifyConfig) -> NotifyConfig:
        """The same without the secrets that only its fields tell."""


class Snapshot:
    """The state of a controller between two calls of `receive`."""

    def __init__(self, controller: Controller) -> None:
        self._root = controller
        prepared = controller.state.prepared
        self.observation = prepared.observation if prepared else None  # the last one
        self._copied: dict[int, tuple[object, list[Any]]] = {}  # by id; also keeps them alive
        waiting: list[Any] = [controller]
        while waiting:
            value = waiting.pop()
            if id(value) not in self._copied:
                parts = _parts(value)
                self._copied[id(value)] = value, parts
                waiting += [part for part in parts if not _is_fixed(part.__class__)]

    def nodes(self, redact: Redact) -> Iterator[list[Any]]:
        """The nodes, those before others that refer to them; the last one is the controller."""
        return _Encoder(self._copied, redact).nodes(self._root)


@cache
def _is_fixed(kind: Any) -> bool:
    """Whether no turn changes such a value, nor what is in it."""
    if kind in _ATOMS or kind is frozenset or (issubclass(kind, tuple) and kind is not tuple):
        return True
    return is_dataclass(kind) and bool(vars(kind)["__dataclass_params__"].frozen)


def _parts(value: Any) -> list[Any]:
    """What a value consists of, in the order of its node."""
    kind = value.__class__
    if kind in (dict, Counter):
        return [part for item in value.items() for part in item]
    if kind in (tuple, deque) or kind in _NAMES:
        return list(value)
    names = _attributes(kind)
    return [getattr(value, name) for name in names] if names else list(vars(value).values())


@cache
def _attributes(kind: Any) -> tuple[str, ...]:
    """Those of a dataclass or a NamedTuple; other classes have what is in their __dict__."""
    if issubclass(kind, tuple):
        return tuple(kind._fields)
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()


class _Encoder:
    def __init__(self, copied: dict[int, tuple[object, list[Any]]], redact: Redact) -> None:
        self._copied, self._redact = copied, redact
        self._numbers: dict[int, int] = {}

    def nodes(self, value: Any) -> Iterator[list[Any]]:
        """The nodes that a value needs and that aren't there yet."""
        kind = type(value)
        if kind in _ATOMS or id(value) in self._numbers:
            return
        known = self._copied.get(id(value))
        shown = self._redact.notify(value) if kind is NotifyConfig else value
        parts = known[1] if known else _parts(shown)
        for part in parts:
            if type(part) not in _ATOMS:
                yield from self.nodes(part)
        if kind is not tuple:
            self._numbers[id(value)] = len(self._numbers)
            yield self._node(value, [self._value(part) for part in parts])

    def _node(self, value: Any, parts: list[Any]) -> list[Any]:
        kind = value.__class__
        if kind in _NAMES:
            return [_NAMES[kind], *parts]
        if kind in (dict, Counter):
            items = ([key, v] for key, v in zip(parts[::2], parts[1::2], strict=True))
            return [kind.__name__.lower(), *items]
        if kind is deque:
            return ["deque", value.maxlen, *parts]
        name = f"{kind.__module__}.{kind.__qualname__}"
        if _class(name.removeprefix(_OURS)) is not kind:
            raise TypeError(f"a {name} can't be part of a record")
        names = _attributes(kind) or vars(value)
        return [name.removeprefix(_OURS), dict(zip(names, parts, strict=True))]

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            return self._redact.text(value)
        if kind is float and not isfinite(value):
            return {"float": "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"}
        if kind is bytes:
            return {"bytes": value.hex()}
        if kind is tuple:
            return [self._value(part) for part in value]
        return value if kind in _ATOMS else {NODE: self._numbers[id(value)]}


@cache
def _class(name: str) -> type | None:
    """A class by its name, None if it is none that a controller consists of."""
    module, _, attribute = name.rpartition(".")
    if not f"{module}.".startswith(_PACKAGES):
        return None
    try:
        kind: Any = getattr(import_module(_OURS + module), attribute, None)
    except ImportError:
        return None
    is_ours = isinstance(kind, type) and kind.__module__ == _OURS + module
    return kind if is_ours and not issubclass(kind, BaseException) else None


class Restorer:
    """Takes nodes as they come; DecodeError if one isn't valid."""

    def __init__(self) -> None:
        self._values: list[Any] = []

    def add(self, nodes: Iterable[Any]) -> None:
        for node in nodes:
            try:
                self._values.append(self._restored(node))
            except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
                what = str(error) if isinstance(error, DecodeError) else "not a node"
                raise DecodeError(what, f"state[{len(self._values)}]") from None

    def controller(self) -> Controller:
        last = self._values[-1] if self._values else None
        if not isinstance(last, Controller):
            raise DecodeError("doesn't end with the controller", "state")
        return last

    def _restored(self, node: Any) -> Any:
        if type(node) is not list or type(node[0]) is not str:
            raise DecodeError("not a node")
        kind, *parts = node
        if kind in _CONTAINERS:
            return _CONTAINERS[kind]([self._value(part) for part in parts])
        if kind in ("dict", "counter"):
            items = {self._value(key): self._value(value) for key, value in parts}
            return items if kind == "dict" else Counter(items)
        if kind == "deque":
            return deque([self._value(part) for part in parts[1:]], parts[0])
        found = _class(kind)
        if found is None:
            raise DecodeError(f"of unknown class {kind[:60]!r}")
        (values,) = parts
        return _restore(found, {name: self._value(value) for name, value in values.items()})

    def _value(self, value: Any) -> Any:
        if type(value) is list:
            return tuple([self._value(part) for part in value])
        if type(value) is not dict:
            return value
        ((kind, what),) = value.items()
        if kind == NODE and type(what) is int and what >= 0:
            return self._values[what]
        if kind == "float":
            return _FLOATS[what]
        if kind == "bytes":
            return bytes.fromhex(what)
        raise DecodeError("not a value")


def _restore(kind: Any, values: dict[str, Any]) -> Any:
    names = _attributes(kind)
    if names and (*values,) != names:
        raise DecodeError(f"{kind.__name__} has the attributes {', '.join(names)}")
    if issubclass(kind, tuple):
        return tuple.__new__(kind, values.values())
    restored = object.__new__(kind)
    for name, value in values.items():
        if name.startswith("__"):
            raise DecodeError(f"no attribute {name[:60]!r}")
        object.__setattr__(restored, name, value)
    return restored
