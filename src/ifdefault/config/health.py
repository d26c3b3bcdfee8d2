"""The keys of the daemon: [health], [daemon] and [hooks].

Rules: as in `config.keys`. Whether a user or an executable exists is the host's matter.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from ifdefault.config.base import Keys, absolute, number, reject, toml
from ifdefault.config.probe_url import Probes
from ifdefault.model.config import DaemonConfig, HealthConfig, HookConfig

_HEALTH, _DAEMON, _HOOKS = HealthConfig(), DaemonConfig(), HookConfig()
_USER = r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?|[0-9]{1,10}"  # useradd(8), or a uid


def _not_below_recover(damp_s: float, info: ValidationInfo) -> float:
    recover_s = info.data.get("recover_s")
    if recover_s is not None and damp_s < recover_s:
        what = f"{damp_s:g} is less than recover_s, {recover_s:g}"
        reject(what, f"use {recover_s:g} or more: it is the longest that recovery may take")
    return damp_s


def _user(value: Any) -> str:
    name = str(value) if type(value) is int else value
    if not isinstance(name, str) or not re.fullmatch(_USER, name):
        reject(f"{toml(value)} is no user", f'use a name or a number, such as "{_DAEMON.user}"')
    return name


def _unprivileged(name: str) -> str:
    if name == "root" or name.strip("0") == "":
        reject(f"{toml(name)} may do everything", "use a user that may do nothing else")
    return name


User = Annotated[
    str,
    PlainValidator(_user),
    AfterValidator(_unprivileged),
    WithJsonSchema({"type": ["string", "integer"], "pattern": f"^({_USER})$"}),
]
Executable = Annotated[str, AfterValidator(lambda path: absolute(path, "/usr/local/sbin/on-down"))]


class HealthKeys(Keys):
    """What is probed, and how it is judged."""

    probes: Probes = Field(
        default=cast(Any, _HEALTH.probes),
        description="targets beyond the gateway, asked by every uplink",
        json_schema_extra={"default": [str(probe) for probe in _HEALTH.probes]},
    )
    rounds_per_s: float = number(
        _HEALTH.rounds_per_s, 0.1, 2, "probe rounds of a path when all is quiet"
    )
    false_alarm_days: float = number(
        _HEALTH.false_alarm_days, 1, 3650, "mean time between false alarms of one path"
    )
    recover_s: float = number(
        _HEALTH.recover_s, 0, 300, "how long answers must come before a path is up again"
    )
    damp_s: Annotated[float, AfterValidator(_not_below_recover)] = Field(
        default=_HEALTH.damp_s,
        strict=True,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        validate_default=True,
        description="the longest such time, of a path that flaps",
    )
    degraded_loss: float = number(
        _HEALTH.degraded_loss, 0, 0.9, "share of lost rounds that makes a path degraded; 0: never"
    )
    degraded_rtt_ms: float = number(
        _HEALTH.degraded_rtt_ms, 0, 10000, "delay that makes a path degraded; 0: never"
    )
    on_down: Literal["free", "keep"] = Field(
        default=_HEALTH.on_down,
        description="what becomes of the outgoing connections of an uplink that is down",
    )


class DaemonKeys(Keys):
    """Who the daemon's processes are."""

    user: User = Field(default=_DAEMON.user, description="the user that hears the Internet")
    hook_user: User = Field(default=_DAEMON.hook_user, description="the user that runs hooks")


class HookKeys(Keys):
    """An executable for each event."""

    up: Executable = Field(default=_HOOKS.up, description="an uplink is up in a family")
    degraded: Executable = Field(default=_HOOKS.degraded, description="it is degraded")
    down: Executable = Field(default=_HOOKS.down, description="it is down")
    default: Executable = Field(default=_HOOKS.default, description="the normal default moved")
    timeout_s: float = number(_HOOKS.timeout_s, 0.1, 300, "after so long a hook is killed")
