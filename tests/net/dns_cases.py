"""What real clients see of the name server: commands, and what is right.

Rules: data alone, for the test and for the bench. A command is dig's or kdig's; SERVER stands for
the address that is asked. What came is told in one line by `told`, so that expected and got can be
compared by eye: status, flags but QR, transport if it isn't UDP, records by type, EDNS with its
flags and options. Cases named after https://ednscomp.isc.org/ ask what its test of that name asks.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from ifdefault.model.dns import AddressRecord, Published, Record, Zone

ZONE = "www.example"
A, B = "203.0.113.10", "198.51.100.10"
A6, B6 = "2001:db8:a::10", "2001:db8:b::10"
ADDRESSES = (A, B, A6, B6)
SERVERS = (f"ns-isp-a.{ZONE}", f"ns-isp-b.{ZONE}")
_CNAME, _TXT, _HTTPS, _CAA = 5, 16, 65, 257


@dataclass(frozen=True, slots=True)
class Case:
    """`absent`: a text that must not be in the output, `present` one that must."""

    what: str
    command: str
    expected: str
    present: str = ""
    absent: str = ""

    def argv(self, server: str, port: int = 53) -> list[str]:
        head, *rest = self.command.replace("SERVER", f"@{server}").split()
        once = ["+nocmd", "+tries=1"] if head == "dig" else ["+retry=0"]
        return [head, "-p", str(port), *once, "+timeout=20", *rest]

    def fits(self, output: str) -> bool:
        absent = bool(self.absent) and self.absent in output
        return told(output) == self.expected and self.present in output and not absent


def zone(serial: int = 1) -> Zone:
    """What the cases ask for."""
    isp_a = (AddressRecord("isp-a", A), AddressRecord("isp-a", A6))
    isp_b = (AddressRecord("isp-b", B), AddressRecord("isp-b", B6))
    text = Record(_TXT, b"\x05hello", '"hello"')
    caa = Record(_CAA, b"\0\5issueca.example", '0 issue "ca.example"')
    https = Record(_HTTPS, b"\0\1\0\0\1\0\3\2h2", '1 . alpn="h2"')
    alias = Record(_CNAME, b"\3www\7example\0", f"{ZONE}.")
    long = tuple(Record(_TXT, b"\xc8" + f"{n:0200}".encode(), "") for n in range(10))
    half = long[:4]
    return Zone(
        ZONE,
        serial,
        f"hostmaster.{ZONE}",
        SERVERS,
        (
            Published(ZONE, "rotate", 30, isp_a + isp_b, (text, caa, https)),
            Published(f"alias.{ZONE}", "rotate", 30, (), (alias,)),
            Published(f"first.{ZONE}", "arrival", 30, isp_a + isp_b),
            Published(f"only.{ZONE}", "arrival-only", 30, isp_a + isp_b),
            Published(f"long.{ZONE}", "rotate", 30, (), long),
            Published(f"half.{ZONE}", "rotate", 30, (), half),
            Published(f"*.wild.{ZONE}", "failover", 30, isp_a),
            Published(SERVERS[0], "rotate", 3600, isp_a),
            Published(SERVERS[1], "rotate", 3600, isp_b),
        ),
    )


_DIG = "dig +norec +noad +nocookie"  # dig asks for EDNS, AD, RD and a cookie by itself
_BARE = f"{_DIG} +noedns"
_LOUD = f"{_DIG} +noednsneg"  # doesn't come again with what the server does know
SOA = "NOERROR aa, 1 SOA"
OPT = f"{SOA}, EDNS 0"
BADVERS, CUT = "BADVERS, EDNS 0", "NOERROR aa tc, EDNS 0"
NOTHING = "NOERROR aa, authority 1 SOA"

CASES = (
    # --- what ednscomp.isc.org asks ---
    Case("dns", f"{_BARE} SERVER {ZONE} SOA", SOA),
    Case("aa", f"{_BARE} SERVER {ZONE} NS", "NOERROR aa, 2 NS, 4 additional"),
    Case("ad", f"{_BARE} +ad SERVER {ZONE} SOA", SOA),
    Case("cd", f"{_BARE} +cd SERVER {ZONE} SOA", "NOERROR aa cd, 1 SOA"),
    Case("rd", f"{_BARE} +rec SERVER {ZONE} SOA", "NOERROR aa rd, 1 SOA"),
    Case("zflag", f"{_BARE} +zflag SERVER {ZONE} SOA", SOA, absent="MBZ"),
    Case("opcode", f"{_BARE} +opcode=15 +header-only SERVER", "NOTIMP"),
    Case("type1000", f"{_BARE} SERVER {ZONE} TYPE1000", NOTHING),
    Case("tcp", f"{_BARE} +tcp SERVER {ZONE} SOA", f"{SOA}, TCP"),
    Case("edns", f"{_DIG} +edns=0 SERVER {ZONE} SOA", OPT),
    Case("edns1", f"{_LOUD} +edns=1 SERVER {ZONE} SOA", BADVERS),
    Case("edns1opt", f"{_LOUD} +edns=1 +ednsopt=100 SERVER {ZONE} SOA", BADVERS),
    Case(
        "edns@512", f"{_DIG} +bufsize=512 +ignore SERVER long.{ZONE} TXT", "NOERROR aa tc, EDNS 0"
    ),
    Case("ednsopt", f"{_DIG} +ednsopt=100 SERVER {ZONE} SOA", OPT, absent="OPT=100"),
    Case("ednsflags", f"{_DIG} +ednsflags=0x40 SERVER {ZONE} SOA", OPT, absent="MBZ"),
    Case("do", f"{_DIG} +dnssec SERVER {ZONE} SOA", f"{OPT} do"),
    Case("edns1do", f"{_LOUD} +edns=1 +dnssec SERVER {ZONE} SOA", f"{BADVERS} do"),
    Case("ednstcp", f"{_DIG} +edns=0 +tcp SERVER {ZONE} SOA", f"{SOA}, TCP, EDNS 0"),
    Case(
        "optlist",
        f"{_DIG} +nsid +subnet=0/0 +expire +cookie=0102030405060708 SERVER {ZONE} SOA",
        f"{OPT}, COOKIE",
    ),
    Case("signed", f"{_DIG} +dnssec SERVER {ZONE} DNSKEY", f"{NOTHING}, EDNS 0 do"),
    # --- truncation, and TCP ---
    Case("no EDNS, 512 bytes", f"{_BARE} +ignore SERVER half.{ZONE} TXT", "NOERROR aa tc"),
    Case("then by TCP", f"{_BARE} SERVER half.{ZONE} TXT", "NOERROR aa, 4 TXT, TCP"),
    Case(
        "bufsize 1232",
        f"{_DIG} +bufsize=1232 SERVER half.{ZONE} TXT",
        "NOERROR aa, 4 TXT, EDNS 0",
    ),
    Case(
        "bufsize 4096: no more than 1232",
        f"{_DIG} +bufsize=4096 +ignore SERVER long.{ZONE} TXT",
        CUT,
    ),
    Case(
        "bufsize 4096, then by TCP",
        f"{_DIG} +bufsize=4096 SERVER long.{ZONE} TXT",
        "NOERROR aa, 10 TXT, TCP, EDNS 0",
    ),
    Case("bufsize 0: as 512", f"{_DIG} +bufsize=0 SERVER {ZONE} SOA", OPT),
    Case("kept open", f"kdig +tcp +keepopen +norec +noedns SERVER {ZONE} SOA", f"{SOA}, TCP"),
    # --- NSID and cookies ---
    Case("NSID", f"kdig +nsid +norec SERVER {ZONE} SOA", OPT, absent="NSID"),
    Case(
        "a client's cookie",
        f"{_DIG} +cookie=0102030405060708 SERVER {ZONE} SOA",
        f"{OPT}, COOKIE",
        present="COOKIE: 0102030405060708010000",
    ),
    Case(
        "another server's cookie",
        f"{_DIG} +cookie=010203040506070801000000000000000102030405060708 SERVER {ZONE} SOA",
        f"{OPT}, COOKIE",
        absent="010203040506070801000000000000000102030405060708",
    ),
    Case(
        "a cookie of a wrong length",
        f"{_LOUD} +ednsopt=10:0102 SERVER {ZONE} SOA",
        "FORMERR, EDNS 0",
    ),
    Case("kdig's cookie", f"kdig +cookie +norec SERVER {ZONE} SOA", f"{OPT}, COOKIE"),
    # --- names and types ---
    Case("addresses", f"{_BARE} SERVER {ZONE} A", "NOERROR aa, 2 A"),
    Case("IPv6 addresses", f"{_BARE} SERVER {ZONE} AAAA", "NOERROR aa, 2 AAAA"),
    Case("0x20", f"{_BARE} SERVER wWw.ExAmPlE A", "NOERROR aa, 2 A", present="wWw.ExAmPlE."),
    Case("text", f"{_BARE} SERVER {ZONE} TXT", "NOERROR aa, 1 TXT", present='"hello"'),
    Case("CAA", f"{_BARE} SERVER {ZONE} CAA", "NOERROR aa, 1 CAA", present='0 issue "ca.example"'),
    Case("HTTPS", f"{_BARE} SERVER {ZONE} HTTPS", "NOERROR aa, 1 HTTPS", present='alpn="h2"'),
    Case("an alias", f"{_BARE} SERVER alias.{ZONE} A", "NOERROR aa, 2 A, 1 CNAME"),
    Case("a wildcard", f"{_BARE} SERVER any.wild.{ZONE} A", "NOERROR aa, 1 A"),
    Case("between", f"{_BARE} SERVER wild.{ZONE} A", NOTHING),
    Case("no such type", f"{_BARE} SERVER {ZONE} MX", NOTHING),
    Case("no such name", f"{_BARE} SERVER none.{ZONE} A", "NXDOMAIN aa, authority 1 SOA"),
    Case("no zone of ours", f"{_BARE} SERVER www.example.net A", "REFUSED"),
    Case("the root", f"{_BARE} SERVER . NS", "REFUSED"),
    Case("ANY", f"{_BARE} +tcp SERVER {ZONE} ANY", "NOERROR aa, 1 HINFO, TCP", present="RFC8482"),
    Case("class CH", f"{_BARE} SERVER version.bind TXT CH", "REFUSED"),
    Case("never recursive", f"{_BARE} +rec SERVER www.example.org A", "REFUSED rd"),
    # --- what only others may ---
    Case("no secondary", f"kdig SERVER {ZONE} AXFR", "REFUSED, TCP"),
    Case(
        "a key that isn't known",
        f"{_DIG} -y hmac-sha256:nobody:bm90IGEgc2VjcmV0IG9mIG91cnM= SERVER {ZONE} SOA",
        "NOTAUTH, EDNS 0",
        present="BADKEY",
    ),
    Case("NOTIFY", f"{_BARE} +opcode=notify SERVER {ZONE} SOA", "NOTIMP"),
    Case("UPDATE", f"{_BARE} +opcode=update SERVER {ZONE} SOA", "NOTIMP"),
    Case("NOTIFY, EDNS", f"{_LOUD} +opcode=notify SERVER {ZONE} SOA", "NOTIMP, EDNS 0"),
)

_STATUS = re.compile(r"status: (\w+)")
_EXTENDED = re.compile(r"ext-rcode: (\w+)")
_REFUSED = re.compile(r"server replied with error '(\w+)'")  # kdig, of a transfer
_FLAGS = re.compile(r"^;; [Ff]lags:([ a-z]*);", re.MULTILINE)
_SECTION = re.compile(r"^;; (ANSWER|AUTHORITY|ADDITIONAL) SECTION:", re.MULTILINE)
_RECORD = re.compile(r"^[^;\s]\S*\s+\d+\s+(?:IN|CH)\s+(\S+)", re.MULTILINE)
_EDNS = re.compile(r"(?:; EDNS: version: |^;; Version: )(\d+)[,;] flags:([ a-z]*);", re.MULTILINE)
_OPTIONS = re.compile(r"^;;? ?(COOKIE|NSID)\b", re.MULTILINE)


def told(output: str) -> str:
    """A line on what dig or kdig printed; what they themselves say if there was no answer."""
    status = _EXTENDED.search(output) or _STATUS.search(output)
    flags, edns = _FLAGS.search(output), _EDNS.search(output)
    if refused := _REFUSED.search(output):
        return f"{refused[1]}, TCP"
    if status is None or flags is None:
        return " ".join(output.split()) or "no answer"
    head = " ".join([status[1], *(flag for flag in flags[1].split() if flag != "qr")])
    sections = _sections(output)
    parts = [f"{count} {kind}" for kind, count in sorted(sections["ANSWER"].items())]
    parts += [f"authority {count} {kind}" for kind, count in sections["AUTHORITY"].items()]
    if others := sum(sections["ADDITIONAL"].values()):
        parts.append(f"{others} additional")
    if "(TCP)" in output:
        parts.append("TCP")
    if edns:
        parts.append(" ".join([f"EDNS {edns[1]}", *edns[2].split()]))
    parts += sorted(set(_OPTIONS.findall(output)))
    return ", ".join([head, *parts])


def _sections(output: str) -> dict[str, Counter[str]]:
    """Records by section and type."""
    _, *rest = _SECTION.split(output)
    found = {name: Counter[str]() for name in ("ANSWER", "AUTHORITY", "ADDITIONAL")}
    for name, text in zip(rest[::2], rest[1::2], strict=True):
        found[name] += Counter(_RECORD.findall(text.partition("\n\n")[0]))
    return found
