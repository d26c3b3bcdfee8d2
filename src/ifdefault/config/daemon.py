"""The keys of [daemon].

Rules: as in `config.base`. Whether a user exists is checked on the host.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from ifdefault.config.base import USER, Keys, reject, toml
from ifdefault.model.config import DaemonConfig

_DAEMON = DaemonConfig()
_USER = f"{USER}|[0-9]{{1,10}}"  # or a uid


def _user(value: Any) -> str:
    name = str(value) if type(value) is int else value
    if not isinstance(name, str) or not re.fullmatch(_USER, name):
        reject(f"{toml(value)} is not a user", f'use a name or a number, such as "{_DAEMON.user}"')
    return name


def _unprivileged(name: str) -> str:
    if name == "root" or name.strip("0") == "":
        reject(f"{toml(name)} has all privileges", "use an unprivileged user")
    return name


User = Annotated[
    str,
    PlainValidator(_user),
    AfterValidator(_unprivileged),
    WithJsonSchema({"type": ["string", "integer"], "pattern": f"^({_USER})$"}),
]


class DaemonKeys(Keys):
    """The users that the daemon's processes run as."""

    user: User = Field(default=_DAEMON.user, description="user of the frontend process")
    hook_user: User = Field(
        default=_DAEMON.hook_user, description="user of hooks and [[dns.exec]] programs"
    )
