"""The files of the state directory that hold the State and our nftables tables, and their formats.

Rules: what is read is checked as far as it can be: it decides what is changed in the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from ifdefault.host.state_file import StateFile
from ifdefault.ipc import codec, fields
from ifdefault.model.config import Family
from ifdefault.model.health import Forced
from ifdefault.model.kernel import Loaded, Ruleset
from ifdefault.model.mptcp import ENDPOINTS_MAX
from ifdefault.plan.numbers import UPLINKS_MAX


def _of_names(pattern: str, values: Any, *, least: int = 0) -> fields.Check:
    """A check of an object whose keys match a pattern and whose lists aren't too short."""
    decode, check_key = codec.decoder(dict[str, values]), fields.text(pattern)

    def check(value: Any) -> Any:
        decoded = decode(value)
        for key, content in decoded.items():
            check_key(key)
            if least and len(content) < least:
                raise ValueError(f"[{key!r}]: fewer than {least}")
        return decoded

    return check


_INTERFACE, _NAME = r"[^\s/\0]{1,15}", r"[^\0]{1,200}"
_SYSCTL = r"net/ipv[46](?:/(?!\.\.?/)[^\s/\0]+){1,4}"
_Value = Annotated[str, fields.text(r"[^\0]{0,200}")]
_Group = Annotated[int, fields.number(0, (1 << 32) - 1)]
_Index = Annotated[int, fields.number(1, (1 << 31) - 1)]
_Limit = Annotated[int, fields.number(0, ENDPOINTS_MAX)]
_Number = Annotated[int, fields.number(1, UPLINKS_MAX)]


@dataclass(frozen=True, slots=True)
class SavedState:
    """model.host.State; `network`: where the indexes in `links` are valid."""

    network: str = ""
    numbers: Annotated[dict[str, int], _of_names(_NAME, _Number)] = field(default_factory=dict)
    sysctls: Annotated[
        dict[str, tuple[str, ...]], _of_names(_SYSCTL, tuple[_Value, ...], least=1)
    ] = field(default_factory=dict)
    groups: Annotated[
        dict[str, tuple[int, ...]], _of_names(_INTERFACE, tuple[_Group, ...], least=1)
    ] = field(default_factory=dict)
    forced: dict[str, Forced] = field(default_factory=dict)
    runs: Annotated[dict[str, str], _of_names(r"/[^\0]*", str)] = field(default_factory=dict)
    links: Annotated[dict[str, int], _of_names(_INTERFACE, _Index)] = field(default_factory=dict)


_LOST_STATE = (
    "uplink numbers and link groups are taken from the kernel; forced states are lost, and"
    " sysctls that ifdefault set keep their values until the next boot"
)
STATE: StateFile[SavedState] = StateFile("state.json", SavedState, _LOST_STATE, copied=True)
# beside state.json, whose format it leaves as it is
LIMITS: StateFile[dict[str, tuple[int, ...]]] = StateFile(
    "mptcp.json",
    Annotated[
        dict[str, tuple[int, ...]],
        _of_names("subflows|add_addr_accepted", tuple[_Limit, ...], least=1),
    ],
    "MPTCP's limits keep their values until the next boot",
)
DISCOVERED: StateFile[tuple[tuple[str, Family, str], ...]] = StateFile(
    "discovered.json", tuple[tuple[str, Family, str], ...], "public addresses are discovered again"
)
TABLES: StateFile[Loaded] = StateFile(
    "tables.json",
    tuple[tuple[str, Ruleset], ...],
    "the nftables tables are loaded again",
    urgent=False,
)
