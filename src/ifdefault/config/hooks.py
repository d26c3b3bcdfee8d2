"""The keys of [hooks].

Rules: as in `config.base`. Whether an executable exists is checked on the host.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from ifdefault.config.base import Keys, absolute, number
from ifdefault.model.config import HookConfig

_HOOKS = HookConfig()
_Executable = Annotated[str, AfterValidator(lambda path: absolute(path, "/usr/local/sbin/on-down"))]


class HookKeys(Keys):
    """An executable for each event."""

    up: _Executable = Field(
        default=_HOOKS.up, description="run when an uplink comes up in a family"
    )
    degraded: _Executable = Field(
        default=_HOOKS.degraded, description="run when an uplink is degraded"
    )
    down: _Executable = Field(default=_HOOKS.down, description="run when an uplink goes down")
    primary: _Executable = Field(
        default=_HOOKS.primary, description="run when another uplink becomes primary"
    )
    timeout_s: float = number(_HOOKS.timeout_s, 0.1, 300, "time after which a hook is killed")
