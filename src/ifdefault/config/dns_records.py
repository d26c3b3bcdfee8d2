"""Static records in the config: TYPE and data, as in a zone file without name, class and TTL.

Rules: dnspython parses them and is imported only if there are any, since that doubles the start-up
time. Names in the data are full names, with or without the final dot; none is relative to a zone. A
record is stored in canonical form, in lower case where the DNS ignores case. Types that the server
generates, that need signing, or that only queries use are rejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from ifdefault.config.base import reject, toml
from ifdefault.model.dns import Record

if TYPE_CHECKING:
    from dns.name import Name
    from dns.rdata import Rdata

A, NS, CNAME, SOA, PTR, MX, AAAA, SRV, SVCB, HTTPS = 1, 2, 5, 6, 12, 15, 28, 33, 64, 65

MOST_RECORDS = 64
MOST_BYTES = 3500  # of data: with addresses and names, it fits one message to the frontend
_LONGEST = 4 * MOST_BYTES  # if each byte is written as \DDD

_EXAMPLES = {
    "CAA": 'CAA 0 issue "letsencrypt.org"',
    "CNAME": "CNAME www.example.org",
    "HTTPS": "HTTPS 1 . alpn=h3,h2",
    "MX": "MX 10 mail.example.org",
    "SRV": "SRV 0 0 443 www.example.net",
    "TXT": 'TXT "v=spf1 -all"',
}
_OWN = "remove it: the zones of [dns.server] have their own, from contact and nameservers"
_UNSIGNED = "remove it: the zones published here aren't signed"
_REFUSED = {
    **dict.fromkeys(("SOA", "NS"), _OWN),
    **dict.fromkeys("DNSKEY DS CDNSKEY CDS RRSIG NSEC NSEC3 NSEC3PARAM SIG NXT".split(), _UNSIGNED),
    "DNAME": "add a CNAME for each name",
    "SPF": "write it as TXT (RFC 7208, 3.1)",
}


def record(text: str) -> Record:
    """Parse one record."""
    if len(text) > _LONGEST or re.search(r"[^ -~]", text):
        remedy = f"use at most {_LONGEST} printable ASCII characters, others as \\DDD"
        reject(f"{_short(text)} is too long, or not printable ASCII", remedy)
    kind, _, data = text.strip().partition(" ")
    kind = _type(text, kind.upper())
    if "@" in re.sub(r'"(\\.|[^"\\])*"', "", data).split():
        reject(f"{_short(text)}: @ has no meaning here", "write the full name")
    rdata = _rdata(text, kind, data)
    for name in _names(rdata):
        _check_target(text, name.to_text(omit_final_dot=True), len(name))
    return Record(rdata.rdtype.value, rdata.to_digestable(), f"{kind} {rdata.to_text()}")


def _check_target(text: str, name: str, labels: int) -> None:
    """Reject what can't be a name in a record's data."""
    if _is_address(name):
        what = f"{_short(text)}: {name} is an address"
        reject(what, "use the name of the host that has this address")
    if labels == 2:  # one, and the root
        what = f"{_short(text)}: {name} is not a full name"
        reject(what, 'write it like "www.example.net", no zone is appended to it')


def _is_address(name: str) -> bool:
    """Whether a name is an IPv4 or IPv6 address; RFC 3696, 2: no top-level domain is a number."""
    last = name.rpartition(".")[2]
    return last.isdecimal() or ":" in last


def _rdata(text: str, kind: str, data: str) -> Rdata:
    """The data, with its names in lower case."""
    import dns.exception
    import dns.name
    import dns.rdata

    reason = "a ; outside quotes begins a comment"
    try:
        rdata = dns.rdata.from_text("IN", kind, data, dns.name.root, relativize=False)
        if getattr(rdata, "rdcomment", None) is None:
            wire = rdata.to_digestable()
            return dns.rdata.from_wire("IN", kind, wire, 0, len(wire))
    except (dns.exception.DNSException, ValueError) as error:
        reason = str(error).lower().removesuffix(".") or f"no data of a {kind}"
    example = _EXAMPLES.get(kind)
    like = f"like {toml(example)}" if example else "as in a zone file, after the type"
    return reject(f"{_short(text)}: {reason}", f"write it {like}")


def _names(rdata: Rdata) -> Iterator[Name]:
    """The domain names in a record's data."""
    from dns.name import Name

    for owner in type(rdata).__mro__:
        for slot in getattr(owner, "__slots__", ()):
            if isinstance(value := getattr(rdata, slot, None), Name):
                yield value


def _type(text: str, kind: str) -> str:
    """The canonical name of a record type."""
    import dns.exception
    import dns.rdatatype

    try:
        value = dns.rdatatype.from_text(kind)
    except (dns.exception.DNSException, ValueError):
        known = [*dns.rdatatype.RdataType.__members__]
        near = get_close_matches(kind, known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"write it like {toml(_EXAMPLES['CAA'])}"
        what = f"{kind[:20]} is not a record type" if kind else "no record type"
        reject(f"{_short(text)}: {what}", remedy)
    kind = dns.rdatatype.to_text(value)
    if not value or dns.rdatatype.is_metatype(value):
        reject(f"{_short(text)}: {kind} is a query type", "use a record type")
    if kind in _REFUSED:
        reject(f"{_short(text)}: {kind} records aren't allowed here", _REFUSED[kind])
    return kind


def _short(text: str) -> str:
    return toml(text if len(text) <= 60 else f"{text[:60]}…")


def bounded(records: Sequence[Record]) -> tuple[Record, ...]:
    """The records of one name: no duplicates, limited size."""
    size = sum(len(record.rdata) for record in records)
    if size > MOST_BYTES:
        reject(f"{size} bytes of data", f"use at most {MOST_BYTES} per name")
    for n, record in enumerate(records):
        if record in records[:n]:
            reject(f"{_short(record.text)} is listed twice", "remove one")
    return tuple(records)


def targets(record: Record) -> tuple[str, ...]:
    """The names in a record's data that clients look up; SVCB's "." is the owner, MX's and SRV's
    says that there is none."""
    import dns.rdata

    kind = record.text.partition(" ")[0]
    rdata = dns.rdata.from_wire("IN", kind, record.rdata, 0, len(record.rdata))
    names = (name.to_text(omit_final_dot=True) for name in _names(rdata))
    return tuple(dict.fromkeys(name for name in names if name != "."))


def addresses(record: Record) -> tuple[str, ...]:
    """The addresses that a record gives for its own name: that of A and AAAA, the hints of SVCB."""
    if record.type in (A, AAAA):
        return (str(ip_address(record.rdata)),)
    if record.type not in (SVCB, HTTPS):
        return ()

    from dns.name import root
    from dns.rdata import from_wire
    from dns.rdtypes.svcbbase import ParamKey

    kind = "SVCB" if record.type == SVCB else "HTTPS"
    rdata: Any = from_wire("IN", kind, record.rdata, 0, len(record.rdata))
    if rdata.target != root:
        return ()
    hints = (rdata.params.get(key) for key in (ParamKey.IPV4HINT, ParamKey.IPV6HINT))
    return tuple(str(ip_address(address)) for hint in hints if hint for address in hint.addresses)
