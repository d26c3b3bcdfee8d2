"""MPTCP in the kernel (RFC 8684): the endpoints that it announces and uses, and its limits.

Rules: as in `model.kernel`. The endpoints of ours are those with an id of ours: no other record
says whose they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ifdefault.model.config import Family

ENDPOINTS_MAX = 8  # MPTCP_PM_ADDR_MAX (net/mptcp/pm_netlink.c); the greatest limit as well
# Ids of ours, of 1 to 255. Others get the next one that is free; after 255 the kernel begins anew
# (net/mptcp/pm_kernel.c). So 255 is used for a moment after ours, and theirs are low.
FIRST_ID, LAST_ID, REWIND_ID = 131, 254, 255
SUBFLOWS, ACCEPTED = "subflows", "add_addr_accepted"  # the limits, as ip-mptcp(8) names them

MptcpLimits = tuple[tuple[str, int], ...]


def endpoint_id(uplink: int, family: Family, *, public: bool = False) -> int:
    """The id of the endpoint of an uplink (by its number, 1 to 31) in one family. `public`: of the
    address that a NAT in front of the host has for it."""
    return LAST_ID - 4 * (uplink - 1) - 2 * (family == 6) - public


def uplink_number(endpoint: int) -> int:
    """The number of the uplink that an id of ours stands for."""
    return (LAST_ID - endpoint) // 4 + 1


@dataclass(frozen=True, order=True, slots=True)
class Endpoint:
    """An address as `ip mptcp endpoint show` lists it. `signal`: it is announced to peers;
    `subflow`: the host opens subflows from it; `backup`: peers use it where no other works."""

    id: int
    address: str
    dev: str = ""  # whence `subflow`s leave; of ours "": rules choose by the address
    port: int = 0
    signal: bool = False
    subflow: bool = False
    backup: bool = False
    fullmesh: bool = False
    implicit: bool = False  # the kernel made it, for a subflow from an address without endpoint

    @property
    def ours(self) -> bool:
        return self.id >= FIRST_ID and not self.implicit


@dataclass(frozen=True, slots=True)
class MptcpState:
    """What the kernel has, in this network namespace. `enabled`: no sysctl forbids it."""

    enabled: bool = True
    endpoints: tuple[Endpoint, ...] = ()
    limits: MptcpLimits = ()

    @property
    def lasting(self) -> MptcpState:
        """Without the endpoints that come with connections."""
        return replace(self, endpoints=tuple(e for e in self.endpoints if not e.implicit))


# --- operations ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetMptcpLimit:
    name: str  # SUBFLOWS, ACCEPTED
    value: int
    was: int


@dataclass(frozen=True, slots=True)
class PutEndpoint:
    """Add an endpoint, or change the flags of the one with its id and address (`was`)."""

    endpoint: Endpoint
    was: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class DeleteEndpoint:
    """The kernel tells peers so, and ends the subflows that use the address."""

    endpoint: Endpoint
