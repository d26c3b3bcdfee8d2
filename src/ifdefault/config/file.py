"""The whole config file: its tables, and their names.

Rules: as in `config.base`.
"""

from __future__ import annotations

from pydantic import ConfigDict, Field

from ifdefault.config.base import Keys
from ifdefault.config.daemon import DaemonKeys
from ifdefault.config.dns import DnsKeys
from ifdefault.config.forward import ForwardKeys
from ifdefault.config.health import HealthKeys
from ifdefault.config.history import HistoryKeys
from ifdefault.config.hooks import HookKeys
from ifdefault.config.host import HostKeys
from ifdefault.config.mptcp import MptcpKeys
from ifdefault.config.notify import MOST_NOTIFY, NotifyKeys
from ifdefault.config.outgoing import OutgoingKeys
from ifdefault.config.uplink import Name, UplinkKeys
from ifdefault.config.web import WebKeys


class File(Keys):
    """The whole config file."""

    model_config = ConfigDict(title="ifdefault.toml")

    uplink: dict[Name, UplinkKeys] = Field(default={}, description="the uplinks, by name")
    host: HostKeys = HostKeys()
    health: HealthKeys = Field(default_factory=HealthKeys)
    daemon: DaemonKeys = DaemonKeys()
    hooks: HookKeys = HookKeys()
    dns: DnsKeys = DnsKeys()
    forward: tuple[ForwardKeys, ...] = Field(
        default=(), description="services that content servers behind the host offer"
    )
    outgoing: OutgoingKeys = Field(default_factory=OutgoingKeys)
    mptcp: MptcpKeys = MptcpKeys()
    web: WebKeys = WebKeys()
    history: HistoryKeys = Field(default_factory=HistoryKeys)
    notify: tuple[NotifyKeys, ...] = Field(
        default=(), max_length=MOST_NOTIFY, description="who is told of events"
    )
