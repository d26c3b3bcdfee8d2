"""What the page needs of the config file.

Rules: what parses the config takes memory, which is why only a child of the helper calls these
functions, and ends (`web.helper`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ifdefault.ipc.fields import number
from ifdefault.ipc.regular_file import read_regular
from ifdefault.model import token as tokens

_Bytes = Annotated[int, number(0, 1 << 62)]


@dataclass(frozen=True, slots=True)
class UplinkSettings:
    """The traffic that an uplink may have in a month, from its `reset_day` on; 0: any."""

    name: str
    budget_bytes: _Bytes
    reset_day: int


@dataclass(frozen=True, slots=True)
class Settings:
    """`token`: whoever reads must know it; "": everybody may. `control`: whether an uplink's state
    may be changed, with a token that the engine knows."""

    listen: str
    hosts: tuple[str, ...]
    token: str
    control: bool
    uplinks: tuple[UplinkSettings, ...]


@dataclass(frozen=True, slots=True)
class Faults:
    """Why there are no settings."""

    texts: tuple[str, ...]


def read(path: Path) -> Settings:
    """The settings in a config file; ConfigError."""
    from ifdefault.config import read as read_config

    config = read_config(path)
    web = config.web
    return Settings(
        web.listen,
        web.hosts,
        read_token(web.token_file) if web.token_file else "",
        bool(web.control_token_file),
        tuple(UplinkSettings(u.name, u.budget_bytes, u.reset_day) for u in config.uplinks),
    )


def read_token(path: str) -> str:
    """The token in a file; ConfigError."""
    from ifdefault.model.errors import ConfigError, Problem, reason

    remedy = tokens.remedy(path) + f", and chown ifdefault-web {path}"
    try:
        data = read_regular(Path(path), tokens.LONGEST)
    except OSError as error:
        what, remedy = f"can't be read: {reason(error)}", "let the user ifdefault-web read it"
        raise ConfigError(Problem(f"web.token_file: {path}", what, remedy)) from None
    token = data.decode("ascii", "replace").strip()
    if what := tokens.fault(token):
        raise ConfigError(Problem(f"web.token_file: {path}", what, remedy))
    return token


def read_or_faults(path: Path) -> Settings | Faults:
    """The settings, or why there are none."""
    from ifdefault.model.errors import IfdefaultError

    try:
        return read(path)
    except IfdefaultError as error:
        return Faults(tuple(map(str, error.problems)))
