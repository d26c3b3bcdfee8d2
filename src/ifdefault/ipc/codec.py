"""Dataclasses to JSON and back, by their type hints.

Rules: a decoder validates everything and converts nothing: a bool is not a number, an unknown field
is an error, and a DecodeError names the field ("health[2].rtt_ms: not a number"). A missing field
takes its default, unless `strict`. Encoders don't validate, since the values are our own.

    int str bool None Literal      as they are
    float                          as it is, an int too; "Infinity", "-Infinity", "NaN" as in proto3
    bytes                          lower-case hexadecimal text
    tuple[X, ...]  tuple[X, Y]     a list
    dict[str, X]  a dataclass      an object
    A | B of dataclasses           an object whose "type" is the name of its class
    Literal | tuple                a word, or a list of values that JSON has itself
    X | None                       null, or X
    Annotated[X, check]            what the check returns for the JSON value, or its ValueError
    Annotated[tuple[X, ...], Most(n)]

Encoders and decoders are closures, made once for each hint. Only the standard library is used, to
keep the frontend small.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from math import isfinite
from operator import attrgetter
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from ifdefault.ipc import strict_json

TAG = "type"
Encode = Callable[[Any], Any]
Decode = Callable[[Any], Any]
T = TypeVar("T")
_NOT_FINITE = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}
_UNIONS = (Union, types.UnionType)


class DecodeError(ValueError):
    """An invalid value; `path` says where, "" is the whole value."""

    def __init__(self, what: str, path: str = "") -> None:
        self.what, self.path = what, path
        super().__init__(f"{path}: {what}" if path else what)


@dataclass(frozen=True, slots=True)
class Most:
    """In Annotated: how many elements a tuple may have."""

    length: int


# --- entry points ---------------------------------------------------------------------


def to_json(record: Any) -> Any:
    """A dataclass as JSON values, without a type field."""
    return encoder(cast(Any, type(record)))(record)


def from_json(kind: type[T], value: Any) -> T:
    read: Callable[[Any], T] = decoder(cast(Any, kind))
    return read(value)


def write(value: Any) -> bytes:
    """JSON values as ASCII text, without spaces and newlines."""
    return strict_json.write(value).encode("ascii")


def read(text: bytes) -> Any:
    """The JSON value in a text; DecodeError if it isn't JSON, or has a duplicate key."""
    try:
        return strict_json.read(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # RecursionError: too deeply nested
        raise DecodeError("not JSON") from error


@cache
def encoder(hint: Any) -> Encode:
    """The encoder for a hint. It leaves tuples, which JSON writes as lists."""
    return _encoder(hint) or (lambda value: value)


@cache
def decoder(hint: Any, *, strict: bool = False) -> Decode:
    """The decoder for a hint; it raises DecodeError."""
    return _decoder(hint, strict)


def tagged(kinds: Iterable[type], *, strict: bool = False) -> Decode:
    """The decoder of a union of classes, or of a single class with a type field."""
    table = {kind.__name__: _decode_record(kind, strict, TAG) for kind in kinds}

    def decode(values: Any) -> Any:
        if type(values) is not dict:
            raise DecodeError("not an object")
        name = values.get(TAG)
        if type(name) is not str or (inner := table.get(name)) is None:
            raise DecodeError("of unknown type")
        try:
            return inner(values)
        except ValueError as error:
            raise _inside(name, error) from None

    return decode


# --- encoders: None if JSON takes the value as it is ----------------------------------------


@cache
def _encoder(hint: Any) -> Encode | None:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _encoder(arguments[0])
    if origin in _UNIONS:
        return _encode_union(_members(hint))
    if origin is tuple:
        return _encode_tuple(arguments)
    if origin is dict:
        inner = _encoder(arguments[1])
        return inner and (lambda values: {key: inner(value) for key, value in values.items()})
    if is_dataclass(hint):
        return _encode_record(cast(type, hint))
    changed: dict[Any, Encode] = {float: _encode_float, bytes: bytes.hex}
    return changed.get(hint)


def _encode_float(value: float) -> float | str:
    if isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _encode_tuple(arguments: tuple[Any, ...]) -> Encode | None:
    if arguments[1:] == (...,):
        inner = _encoder(arguments[0])
        return inner and (lambda values: [inner(value) for value in values])
    encoders = [encoder(argument) for argument in arguments]
    if not any(map(_encoder, arguments)):
        return None
    return lambda values: [encode(value) for encode, value in zip(encoders, values, strict=True)]


def _encode_union(members: list[Any]) -> Encode | None:
    """Dataclasses by their class; one type or None; words or a list as they are."""
    if len(members) > 1 and _has_name(members[0]):
        table = {kind: _encode_record(kind, tagged=True) for kind in members}
        return lambda value: None if value is None else table[type(value)](value)
    inner = _encoder(members[0])
    return inner and (lambda value: None if value is None else inner(value))


def _encode_record(kind: type, *, tagged: bool = False) -> Encode:
    hints = _hints(kind)
    keys = [TAG, *hints] if tagged else [*hints]
    paths = ["__class__.__name__", *hints] if tagged else [*hints]
    changed = [(name, change) for name in hints if (change := _encoder(hints[name]))]
    # attrgetter returns a tuple only for two or more names; zip ignores the surplus ones
    values = attrgetter(*paths, "__class__", "__class__")

    def encode(record: Any) -> dict[str, Any]:
        encoded = dict(zip(keys, values(record)))  # noqa: B905 (strict= is 50 % slower)
        for name, change in changed:
            encoded[name] = change(encoded[name])
        return encoded

    return encode


# --- decoders -----------------------------------------------------------------------------


@cache
def _decoder(hint: Any, strict: bool) -> Decode:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        check = arguments[1]
        if isinstance(check, Most):
            return _at_most(_decoder(arguments[0], strict), check.length)
        return cast(Decode, check)
    if origin is Literal:
        return _one_of(arguments)
    if origin in _UNIONS:
        return _decode_union(hint, strict)
    if origin is tuple:
        return _decode_tuple(arguments, strict)
    if origin is dict and arguments[0] is str:
        return _decode_dict(_decoder(arguments[1], strict))
    if is_dataclass(hint):
        return _decode_record(cast(type, hint), strict)
    if hint in _SCALARS:
        return _SCALARS[hint]
    raise TypeError(f"{hint} can't be represented in JSON")


def _exactly(kind: type, what: str) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) is kind:  # not isinstance: a bool is an int
            return value
        raise DecodeError(what)

    return decode


def _decode_float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int and -(1 << 1023) < value < 1 << 1023:
        return float(value)
    if type(value) is str and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    raise DecodeError("not a number")


def _decode_bytes(value: Any) -> bytes:
    try:
        if type(value) is str and (data := bytes.fromhex(value)).hex() == value:
            return data
    except ValueError:
        pass
    raise DecodeError("not bytes in lower-case hexadecimal")


_SCALARS: dict[Any, Decode] = {
    int: _exactly(int, "not a whole number"),
    str: _exactly(str, "not a text"),
    bool: _exactly(bool, "neither true nor false"),
    float: _decode_float,
    bytes: _decode_bytes,
}


def _one_of(options: tuple[Any, ...]) -> Decode:
    by_type = {type(option): {o for o in options if type(o) is type(option)} for option in options}
    what = f"not one of {', '.join(map(json.dumps, options))}"

    def decode(value: Any) -> Any:
        if value in by_type.get(type(value), ()):
            return value
        raise DecodeError(what)

    return decode


def _decode_tuple(arguments: tuple[Any, ...], strict: bool) -> Decode:
    if arguments[1:] == (...,):
        return _decode_list(_decoder(arguments[0], strict))
    decoders = [_decoder(argument, strict) for argument in arguments]
    decode_pairs = _decode_list(lambda pair: pair[0](pair[1]))

    def decode(values: Any) -> Any:
        if type(values) not in (list, tuple) or len(values) != len(decoders):
            raise DecodeError(f"not a list of {len(decoders)}")
        return decode_pairs([*zip(decoders, values, strict=True)])

    return decode


def _decode_list(inner: Decode) -> Decode:
    def decode(values: Any) -> tuple[Any, ...]:
        if type(values) not in (list, tuple):
            raise DecodeError("not a list")
        try:
            return tuple([inner(value) for value in values])
        except ValueError:
            raise _first_fault(inner, enumerate(values)) from None

    return decode


def _at_most(inner: Decode, length: int) -> Decode:
    def decode(values: Any) -> Any:
        if type(values) in (list, tuple) and len(values) > length:
            raise DecodeError(f"more than {length}")
        return inner(values)

    return decode


def _decode_dict(inner: Decode) -> Decode:
    def decode(values: Any) -> dict[str, Any]:
        if type(values) is not dict:
            raise DecodeError("not an object")
        try:
            return {key: inner(value) for key, value in values.items()}
        except ValueError:
            raise _first_fault(inner, values.items()) from None

    return decode


def _decode_union(hint: Any, strict: bool) -> Decode:
    members = _members(hint)
    if _is_words_or_list(members):
        words, items = [_decoder(member, strict) for member in members]
        return lambda value: (items if type(value) in (list, tuple) else words)(value)
    inner = tagged(members, strict=strict) if len(members) > 1 else _decoder(members[0], strict)
    if types.NoneType not in get_args(hint):
        return inner
    return lambda value: None if value is None else inner(value)


def _decode_record(kind: type, strict: bool, tag: str = "") -> Decode:
    checks = [(name, _decoder(hint, strict)) for name, hint in _hints(kind).items()]
    names = dict(checks).keys()
    keys = {*names, tag} - {""}
    needed = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]

    def present(values: dict[str, Any]) -> list[tuple[str, Decode]]:
        """The checks of the fields that are there; DecodeError for unknown or missing fields."""
        if strict:
            raise DecodeError(f"not exactly the fields {', '.join(names)}")
        if surplus := [name for name in values if name not in keys]:
            raise DecodeError(f"no field {surplus[0][:60]!r}")
        if missing := [name for name in needed if name not in values]:
            raise DecodeError("missing", missing[0])
        return [(name, check) for name, check in checks if name in values]

    def decode(values: Any) -> Any:
        if type(values) is not dict:
            raise DecodeError("not an object")
        relevant = checks if values.keys() == keys else present(values)
        name, decoded = "", {}
        try:
            for name, check in relevant:
                decoded[name] = check(values[name])
        except ValueError as error:
            raise _inside(name, error) from None
        return kind(**decoded)

    return decode


# --- common parts ---------------------------------------------------------------------


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def _members(hint: Any) -> list[Any]:
    """The members of a union except None; several must be dataclasses, tagged by their class."""
    members = [member for member in get_args(hint) if member is not types.NoneType]
    if len(members) > 1 and not (all(map(_has_name, members)) or _is_words_or_list(members)):
        raise TypeError(f"{hint}: a union must be of dataclasses without a field {TAG!r}")
    return members


def _is_words_or_list(members: list[Any]) -> bool:
    return [*map(get_origin, members)] == [Literal, tuple] and not any(map(_encoder, members))


def _has_name(kind: Any) -> bool:
    return is_dataclass(kind) and all(field.name != TAG for field in fields(kind))


def _inside(step: str, error: ValueError) -> DecodeError:
    """The same error, with its path as seen from one level further out."""
    what, path = (error.what, error.path) if isinstance(error, DecodeError) else (str(error), "")
    joint = "." if path and not path.startswith("[") else ""
    return DecodeError(what, f"{step}{joint}{path}")


def _first_fault(inner: Decode, items: Iterable[tuple[Any, Any]]) -> DecodeError:
    """The error of the first invalid element; searched for only if there is one."""
    for key, value in items:
        try:
            inner(value)
        except ValueError as error:
            return _inside(f"[{str(key)[:60]!r}]" if isinstance(key, str) else f"[{key}]", error)
    raise AssertionError
