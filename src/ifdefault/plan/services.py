"""The text of our second nftables table, `inet ifdefault_forward`: the forwarded services.

Rules: a packet to a service takes one look into a map, however many services there are.
"""

from __future__ import annotations

from ifdefault.model import Uplink
from ifdefault.wanted import ForwardConfig


def render(
    forwards: tuple[ForwardConfig, ...],
    uplinks: tuple[Uplink, ...],
    gone: tuple[tuple[str, int], ...],
) -> str:
    """The whole table, or "" where nothing is forwarded."""
    return ""
