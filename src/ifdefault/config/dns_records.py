"""Static records as the config writes them: TYPE and data, as in a zone file without name, class
and TTL.

Rules: dnspython parses them, and is imported only where there is one: it takes as long as all else.
A name in the data is whole, with or without the final dot: nothing is relative to a zone. However
it was written, a record comes out in one form, lower case where the DNS sees no difference. Types
that a zone makes by itself, that need signing, or that only questions have are refused.
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

A, CNAME, AAAA, SVCB, HTTPS = 1, 5, 28, 64, 65

MOST_RECORDS = 64
MOST_BYTES = 3500  # of data: with addresses and names around it, it fits one of our messages
_LONGEST = 4 * MOST_BYTES  # each written as \DDD

_EXAMPLES = {
    "CAA": 'CAA 0 issue "letsencrypt.org"',
    "CNAME": "CNAME www.example.org",
    "HTTPS": "HTTPS 1 . alpn=h3,h2",
    "MX": "MX 10 mail.example.org",
    "SRV": "SRV 0 0 443 www.example.net",
    "TXT": 'TXT "v=spf1 -all"',
}
_OWN = "drop it: a zone of [dns.server] has its own, by its keys contact and nameservers"
_UNSIGNED = "drop it: what is published here isn't signed"
_REFUSED = {
    **dict.fromkeys(("SOA", "NS"), _OWN),
    **dict.fromkeys("DNSKEY DS CDNSKEY CDS RRSIG NSEC NSEC3 NSEC3PARAM SIG NXT".split(), _UNSIGNED),
    "DNAME": "name each name by itself, with a CNAME",
}


def record(text: str) -> Record:
    """Parse one record."""
    if len(text) > _LONGEST or re.search(r"[^ -~]", text):
        remedy = f"use at most {_LONGEST} printable ASCII characters, others as \\DDD"
        reject(f"{_short(text)} is too long, or has foreign letters", remedy)
    kind, _, data = text.strip().partition(" ")
    kind = _type(text, kind.upper())
    if "@" in re.sub(r'"(\\.|[^"\\])*"', "", data).split():
        reject(f"{_short(text)}: @ stands for nothing here", "write the name whole")
    rdata = _rdata(text, kind, data)
    for name in _names(rdata):
        if len(name) == 2:  # a label, and the root's
            what = f"{_short(text)}: {name.to_text(omit_final_dot=True)} is no whole name"
            reject(what, 'write it like "www.example.net", since no zone is added to it')
    return Record(rdata.rdtype.value, rdata.to_digestable(), f"{kind} {rdata.to_text()}")


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
    """The type as the DNS names it."""
    import dns.exception
    import dns.rdatatype

    try:
        value = dns.rdatatype.from_text(kind)
    except (dns.exception.DNSException, ValueError):
        known = [*dns.rdatatype.RdataType.__members__]
        near = get_close_matches(kind, known, n=1)
        remedy = f"the nearest is {near[0]}" if near else f"write it like {toml(_EXAMPLES['CAA'])}"
        reject(f"{_short(text)}: {kind[:20] or 'nothing'} is no type of record", remedy)
    kind = dns.rdatatype.to_text(value)
    if not value or dns.rdatatype.is_metatype(value):
        reject(f"{_short(text)}: {kind} is a type of questions", "name what there is")
    if kind in _REFUSED:
        reject(f"{_short(text)}: {kind} records aren't taken here", _REFUSED[kind])
    return kind


def _short(text: str) -> str:
    return toml(text if len(text) <= 60 else f"{text[:60]}…")


def bounded(records: Sequence[Record]) -> tuple[Record, ...]:
    """Those of one name: each once, and not too much."""
    size = sum(len(each.rdata) for each in records)
    if size > MOST_BYTES:
        reject(f"{size} bytes of data", f"keep at most {MOST_BYTES} a name")
    for n, each in enumerate(records):
        if each in records[:n]:
            reject(f"{_short(each.text)} is there twice", "drop one")
    return tuple(records)


def addresses(record: Record) -> tuple[str, ...]:
    """The addresses at which a record promises this host: its own, or its hints for its name."""
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
