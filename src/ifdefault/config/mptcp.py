"""The keys of [mptcp].

Rules: as in `config.base`.
"""

from __future__ import annotations

from pydantic import Field

from ifdefault.config.base import Keys
from ifdefault.model.config import MptcpConfig

_MPTCP = MptcpConfig()


class MptcpKeys(Keys):
    """Connections over several uplinks at once (RFC 8684)."""

    announce: bool = Field(
        default=_MPTCP.announce,
        strict=True,
        description="announce the uplinks' addresses to the peers of MPTCP connections",
    )
    outgoing: bool = Field(
        default=_MPTCP.outgoing,
        strict=True,
        description="have MPTCP connections of the host's own programs use all uplinks",
    )
