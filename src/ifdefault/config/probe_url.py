"""Probes as the config writes them: a URL, or a table with a URL and the HTTP statuses that count.

Rules: two ways to write the same probe give the same `Probe`: names and addresses are canonical,
ports are told, a path is never empty. Names aren't resolved here; addresses that no uplink can
lead to are refused.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, Field, WithJsonSchema

from ifdefault.config.base import Keys, distinct, labels, reject, short_for
from ifdefault.model.config import DEFAULT_PORTS, Probe, ProbeKind

_KINDS: tuple[ProbeKind, ...] = get_args(ProbeKind)
_EXAMPLES = {
    "icmp": "icmp://192.0.2.1",
    "tcp": "tcp://example.net:443",
    "http": "http://192.0.2.1/health",
    "https": "https://example.net/health",
    "dns": "dns://192.0.2.53/example.net",
}
_LONGEST = 1000
_URL = re.compile(r"(?P<kind>[A-Za-z][\w+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?P<host>\[[^]]*\]|[^:\[\]]*)(?::(?P<port>[^:]*))?")


def parse_url(url: str) -> Probe:
    """Parse one URL; each kind takes only what it can ask for."""
    found = _URL.fullmatch(url)
    if not found:
        reject(f'"{url}" is no probe', f'write it like "{_likely(url)}"')
    kind: Any = found["kind"].lower()
    if kind not in _KINDS:
        reject(f'"{url}": {kind} is no kind of probe', f"use one of {', '.join(_KINDS)}")
    if len(url) > _LONGEST or re.search(r"[^!-~]", url):
        remedy = f"use at most {_LONGEST} printable ASCII characters, others as %20 or xn--"
        reject(f'"{url[:60]}" is too long, or has blanks or foreign letters', remedy)
    host, port = _authority(url, found["authority"], kind)
    return Probe(kind, host, port, _path(url, found["rest"], kind))


def _likely(text: str) -> str:
    """What may have been meant by a text that is no URL."""
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        return _EXAMPLES["tcp" if re.fullmatch(r"[^/]+:\d+", text) else "icmp"]
    return f"icmp://[{address}]" if address.version == 6 else f"icmp://{address}"


def _authority(url: str, authority: str, kind: ProbeKind) -> tuple[str, int]:
    if "@" in authority:
        reject(f'"{url}" names a user', "a probe logs in nowhere: drop what stands before the @")
    found = _AUTHORITY.fullmatch(authority)
    if not found:
        remedy = f'write it in brackets, like "{kind}://[2001:db8::1]"'
        reject(f'"{url}" has more colons than a port takes', remedy)
    return _host(url, found["host"], kind), _port(url, found["port"], kind)


def _port(url: str, text: str | None, kind: ProbeKind) -> int:
    if kind == "icmp":
        if text is not None:
            reject(f'"{url}": ICMP has no ports', f'write it like "{_EXAMPLES[kind]}"')
        return 0
    if text is None and kind != "tcp":
        return DEFAULT_PORTS[kind]
    if not text:
        reject(f'"{url}" has no port', f'write it like "{_EXAMPLES["tcp"]}"')
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        reject(f'"{url}": {text} is no port', "use 1 to 65535")
    return int(text)


def _host(url: str, host: str, kind: ProbeKind) -> str:
    if not host:
        reject(f'"{url}" names no host', f'write it like "{_EXAMPLES[kind]}"')
    bare = host.strip("[]")
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return _name(url, host)
    if "%" in bare or address.is_link_local or address.is_loopback or address.is_multicast:
        reject(f'"{url}" is not beyond an uplink', "name a host of the Internet")
    if address.is_unspecified:
        reject(f'"{url}" is no host', "name a host of the Internet")
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        reject(f'"{url}" is an IPv4 address in IPv6', f'write "{kind}://{address.ipv4_mapped}…"')
    return str(address)


def _name(url: str, host: str) -> str:
    name = host.lower().removesuffix(".")
    sound = labels(name)
    if not sound or sound[-1].isdigit():  # RFC 3696, 2: else it would be an address
        reject(f'"{url}": {host} is neither an address nor a name', "write it as in the DNS")
    if sound[-1] == "localhost":
        reject(f'"{url}" is not beyond an uplink', "name a host of the Internet")
    return name


def _path(url: str, rest: str, kind: ProbeKind) -> str:
    if "#" in rest:
        reject(f'"{url}": a server never sees what follows #', "drop it")
    if kind in ("http", "https"):
        return rest if rest.startswith("/") else f"/{rest}"
    path = rest.removeprefix("/")
    if kind == "dns":
        name = path.removesuffix(".").lower()
        if name and not labels(name):
            reject(f'"{url}": "{path}" is no name to ask for', f'write "{_EXAMPLES["dns"]}"')
        return name
    if path:
        reject(f'"{url}": {kind} has no path', f'write it like "{_EXAMPLES[kind]}"')
    return ""


_HttpStatus = Annotated[int, Field(strict=True, ge=100, le=599)]


class ProbeKeys(Keys):
    url: Annotated[Any, AfterValidator(lambda url: _as_probe(url))]
    status: tuple[_HttpStatus, ...] = ()


def _as_probe(url: Any) -> Probe:
    if not isinstance(url, str):
        reject("not a text", f'write it like "{_EXAMPLES["icmp"]}"')
    return parse_url(url)


def _joined(keys: ProbeKeys) -> Probe:
    probe: Probe = keys.url
    if keys.status and probe.kind not in ("http", "https"):
        reject(f'"{probe}": {probe.kind} has no status', "drop it, or ask by http:// or https://")
    statuses = tuple(sorted(set(keys.status)))
    return Probe(probe.kind, probe.host, probe.port, probe.path, statuses)


_SCHEMA = {
    "anyOf": [
        {
            "type": "string",
            "pattern": f"^({'|'.join(_KINDS)})://",
            "examples": [*_EXAMPLES.values()],
        },
        {
            "type": "object",
            "required": ["url"],
            "additionalProperties": False,
            "properties": {
                "url": {"type": "string", "pattern": "^https?://"},
                "status": {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 100, "maximum": 599},
                },
            },
        },
    ]
}
_ProbeItem = Annotated[
    ProbeKeys, short_for("url"), AfterValidator(_joined), WithJsonSchema(_SCHEMA)
]
Probes = Annotated[tuple[_ProbeItem, ...], distinct("name it once, it is asked often enough")]
