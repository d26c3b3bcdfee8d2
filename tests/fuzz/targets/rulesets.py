"""What nft and iptables list of other programs' rulesets: the marks that they use, and the packets
that they drop.

Rules: what isn't understood becomes unknown, or is an error with a name. An input is JSON, or, if
it begins with "*" or "#", text of iptables-save.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from unittest.mock import patch

from ifdefault.kernel import filters, nft
from ifdefault.kernel.foreign import Saved, foreign_marks
from ifdefault.model.errors import IfdefaultError
from ifdefault.model.packet_filter import WHOLE_MARK
from ifdefault.plan.packet_filter import Packet, dropped

KIND = "json"
NONE = '{"nftables": []}'
PACKETS = (
    Packet("wan0", 4, "udp", "203.0.113.10", 53),
    Packet("wan1", 6, "tcp", "2001:db8::1", 443, ("new", "untracked")),
    Packet("wan0", 4, "tcp", "10.0.0.10", 443, out_interface="lan0", statuses=("dnat",)),
)
_RULESETS = Path(__file__).parents[2] / "unit" / "rulesets"


def seeds() -> list[bytes]:
    listed = json.loads((_RULESETS / "firewalld_public.json").read_text())["nftables"]
    parts = [listed[n : n + 8] for n in range(0, len(listed), 8)]
    texts = [(_RULESETS / f"ufw_22.{name}").read_bytes() for name in ("iptables", "ip6tables")]
    return [*(json.dumps({"nftables": part}).encode() for part in parts), *texts]


def one(data: bytes) -> None:
    text = data.decode(errors="replace")
    saved: Saved = ()
    if data[:1] in (b"*", b"#"):
        text, saved = NONE, (("iptables", text), ("ip6tables-legacy", text))
    with patch.object(nft, "elements_json", lambda *_: text):
        _read(text, saved)


def _read(text: str, saved: Saved) -> None:
    try:
        marks = foreign_marks(text, saved)
        arriving = filters.filter_chains(text, saved)
        passing = filters.filter_chains(text, saved, "forward")
    except IfdefaultError:
        return
    for mark in marks:
        assert 0 < mark.bits <= WHOLE_MARK
        assert mark.value is None or 0 <= mark.value <= WHOLE_MARK
    for chains, packet in product((arriving, passing), PACKETS):
        if drop := dropped(chains, packet):
            assert drop.base.policy
            assert drop.rule or drop.base.policy == "drop"
