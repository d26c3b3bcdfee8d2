"""What a shell completes: the values of arguments. Commands and options are known to click.

Rules: quick, since it runs at each press of Tab: the config is read without being checked, and no
daemon is asked. What can't be read completes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

T = TypeVar("T")
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def from_values(values: Callable[[click.Context], Iterable[str]]) -> Complete:
    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        return [value for value in values(ctx) if value.startswith(incomplete)]

    return complete


def _config(ctx: click.Context) -> dict[str, Any]:
    import tomllib

    path = ctx.find_root().params.get("config")
    try:
        return tomllib.loads(Path(path or "").read_text("utf-8", "replace"))
    except (OSError, ValueError):
        return {}


def _of(kind: type[T], value: object) -> T:
    """The value, or an empty one if it is of another kind."""
    return value if isinstance(value, kind) else kind()


def _uplinks(ctx: click.Context) -> Iterable[str]:
    return _of(dict, _config(ctx).get("uplink"))


def _dns(ctx: click.Context) -> dict[str, Any]:
    return _of(dict, _config(ctx).get("dns"))


def _zones(ctx: click.Context) -> Iterable[str]:
    zones = _of(list, _of(dict, _dns(ctx).get("server")).get("zones"))
    return [zone for zone in zones if isinstance(zone, str)]


def _names(ctx: click.Context) -> Iterable[str]:
    tables = (_of(dict, table) for table in _of(list, _dns(ctx).get("name")))
    return [*filter(None, (_of(str, table.get("name")) for table in tables)), *_zones(ctx)]


def _notifiers(ctx: click.Context) -> Iterable[str]:
    tables = (_of(dict, table) for table in _of(list, _config(ctx).get("notify")))
    return filter(None, (_of(str, table.get("name")) for table in tables))


def _interfaces(_: click.Context) -> Iterable[str]:
    try:
        return sorted(os.listdir("/sys/class/net"))
    except OSError:
        return ()


def _commands(ctx: click.Context) -> Iterable[str]:
    """The commands below those that were given, for `help`."""
    root = ctx.find_root()
    command: click.Command | None = root.command
    for name in ctx.params.get("commands") or ():
        command = command.get_command(root, name) if isinstance(command, click.Group) else None
    return command.list_commands(root) if isinstance(command, click.Group) else ()


uplinks, zones, names = from_values(_uplinks), from_values(_zones), from_values(_names)
notifiers = from_values(_notifiers)
interfaces, commands = from_values(_interfaces), from_values(_commands)
