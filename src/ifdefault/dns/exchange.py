"""Questions to DNS servers, and what they answered.

Rules: pure. Names are canonical; "" is the root.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from ifdefault.model.dns import within

T = TypeVar("T")

NO_ANSWER = "no answer"  # the error of a query that timed out


@dataclass(frozen=True, slots=True)
class Question:
    """A query to a server. `uplink` "": by the host's own routing."""

    address: str
    name: str
    type: str
    uplink: str = ""
    tcp: bool = False
    port: int = 53


@dataclass(frozen=True, slots=True)
class Rrset:
    """Records of one name and type. Names in `values` are canonical, other data as in dig."""

    name: str
    ttl: int
    type: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The response to a question, or `error` if there is none; `is_local`: the error is this
    host's, and not evidence about the server or the uplink."""

    error: str = ""
    is_local: bool = False
    code: str = "NOERROR"
    authoritative: bool = False
    answer: tuple[Rrset, ...] = ()
    authority: tuple[Rrset, ...] = ()
    additional: tuple[Rrset, ...] = ()
    took_ms: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether this is an authoritative answer, positive or negative."""
        valid = self.code in ("NOERROR", "NXDOMAIN")
        return not self.error and self.authoritative and valid

    def serves(self, zone: str) -> bool:
        return self.is_good and self.find(zone, "SOA") is not None

    @property
    def soa(self) -> Rrset | None:
        return next((r for r in (*self.answer, *self.authority) if r.type == "SOA"), None)

    def find(self, name: str, kind: str) -> Rrset | None:
        return next((r for r in self.answer if (r.name, r.type) == (name, kind)), None)

    def referral(self, zone: str, name: str) -> Rrset | None:
        """The NS records of a delegation below `zone` that encloses `name`, if there are any."""
        if self.error or self.code != "NOERROR" or self.answer:
            return None
        below = (r for r in self.authority if r.type == "NS" and r.name != zone)
        return next((r for r in below if within(name, r.name) and is_under(r.name, zone)), None)


Queries = Generator[tuple[Question, ...], tuple[QueryResult, ...], T]
Exchange = tuple[Question, QueryResult]


def is_under(name: str, zone: str) -> bool:
    return not zone or within(name, zone)
