"""Probes in the config: a URL, or a table with a URL and the HTTP statuses that count as success.

Rules: the same probe always gives the same `Probe`: names and addresses are canonical, the port is
explicit, an HTTP path is never empty. Names aren't resolved here; addresses that can't be reached
through an uplink are rejected.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, Field, WithJsonSchema

from ifdefault.config.base import Keys, distinct, labels, reject, shorthand_for, toml
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
    """Parse one URL; each kind accepts only the parts that it can use."""
    match = _URL.fullmatch(url)
    if not match:
        reject(f'"{url}" is not a probe URL', f'write it like "{_likely(url)}"')
    kind: Any = match["kind"].lower()
    if kind not in _KINDS:
        reject(f'"{url}": {kind} is not a kind of probe', f"use one of {', '.join(_KINDS)}")
    if len(url) > _LONGEST or re.search(r"[^!-~]", url):
        remedy = f"use at most {_LONGEST} printable ASCII characters, others as %20 or xn--"
        reject(f'"{url[:60]}" is too long, or has spaces or non-ASCII characters', remedy)
    host, port = _authority(url, match["authority"], kind)
    return Probe(kind, host, port, _path(url, match["rest"], kind))


def _likely(text: str) -> str:
    """A likely URL for a text that isn't one."""
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        return _EXAMPLES["tcp" if re.fullmatch(r"[^/]+:\d+", text) else "icmp"]
    return f"icmp://[{address}]" if address.version == 6 else f"icmp://{address}"


def _authority(url: str, authority: str, kind: ProbeKind) -> tuple[str, int]:
    if "@" in authority:
        reject(f'"{url}" has a user name', "remove what precedes the @: probes don't log in")
    match = _AUTHORITY.fullmatch(authority)
    if not match:
        remedy = f'write IPv6 addresses in brackets, like "{kind}://[2001:db8::1]"'
        reject(f'"{url}" has too many colons', remedy)
    return _host(url, match["host"], kind), _port(url, match["port"], kind)


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
        reject(f'"{url}": {text} is not a port', "use 1 to 65535")
    return int(text)


def _host(url: str, host: str, kind: ProbeKind) -> str:
    if not host:
        reject(f'"{url}" has no host', f'write it like "{_EXAMPLES[kind]}"')
    bare = host.strip("[]")
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return _name(url, host)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        reject(
            f'"{url}" is an IPv4-mapped IPv6 address', f'write "{kind}://{address.ipv4_mapped}…"'
        )
    if "%" in bare or address.is_link_local or address.is_loopback or address.is_multicast:
        reject(f"{toml(url)} can't be reached through an uplink", "use a host on the Internet")
    if address.is_unspecified:
        reject(f'"{url}" is not a host', "use a host on the Internet")
    return str(address)


def _name(url: str, host: str) -> str:
    name = host.lower().removesuffix(".")
    parts = labels(name)
    if not parts or parts[-1].isdigit():  # RFC 3696, 2: otherwise it would be an address
        reject(f'"{url}": {host} is neither an address nor a name', "use a name in the DNS")
    if parts[-1] == "localhost":
        reject(f"{toml(url)} can't be reached through an uplink", "use a host on the Internet")
    return name


def _path(url: str, rest: str, kind: ProbeKind) -> str:
    if "#" in rest:
        reject(f'"{url}": servers never see what follows #', "remove it")
    if kind in ("http", "https"):
        return rest if rest.startswith("/") else f"/{rest}"
    path = rest.removeprefix("/")
    if kind == "dns":
        name = path.removesuffix(".").lower()
        if name and not labels(name):
            reject(f'"{url}": "{path}" is not a name to query', f'write "{_EXAMPLES["dns"]}"')
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
        reject("not a string", f'write it like "{_EXAMPLES["icmp"]}"')
    return parse_url(url)


def _joined(keys: ProbeKeys) -> Probe:
    probe: Probe = keys.url
    if keys.status and probe.kind not in ("http", "https"):
        remedy = "remove it, or use http:// or https://"
        reject(f'"{probe}": {probe.kind} probes have no status', remedy)
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
    ProbeKeys, shorthand_for("url"), AfterValidator(_joined), WithJsonSchema(_SCHEMA)
]
Probes = Annotated[tuple[_ProbeItem, ...], distinct("list it once")]
