"""The world `lan` of the benches about forwarding: its config and its servers.

Rules: the number of connections is in proportion to SHARE, so that a trial run takes seconds.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterable

from bench.subject import config
from ifdefault.lab import ports, services
from ifdefault.lab.node import Node

SHARE = float(os.environ.get("BENCH_SHARE", "1"))
UPLINKS: tuple[dict[str, object], ...] = (
    {"name": "isp-a", "interface": "wan0"},
    {"name": "isp-b", "interface": "wan1", "gateways": ["198.51.100.1", "2001:db8:b::1"]},
)
WEB1 = ("10.0.0.10", "fd00:10::10")
WEB2 = ("10.0.0.11", "fd00:10::11")
ROUTER = ("10.0.0.1", "fd00:10::1")  # the host, as the LAN sees it
CADDY_HTTP = 8081


def part(number: int) -> int:
    """The number, scaled by SHARE."""
    return max(1, round(number * SHARE))


def forward(listen: Iterable[str], to: Iterable[str], **more: str) -> str:
    """A `[[forward]]`."""
    keys = [f'{key} = "{value}"' for key, value in more.items()]
    return "\n".join(["[[forward]]", f"listen = {_list(listen)}", f"to = {_list(to)}", *keys, ""])


def text(
    *tables: str,
    weights: tuple[int, int] = (1, 1),
    ranks: tuple[int, int] = (0, 0),
    **host: object,
) -> str:
    """The config of the two uplinks, and more tables."""
    uplinks = [
        row | {"weight": weight, "rank": rank}
        for row, weight, rank in zip(UPLINKS, weights, ranks, strict=True)
    ]
    return "\n".join([config(uplinks, **host), *tables])


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{text}"' for text in texts) + "]"


def caddy(node: Node) -> subprocess.Popen[str]:
    """A server for HTTP/1 and HTTP/3 that replies with the client's address."""
    home = services.home_of(node, "caddy")
    (home / "Caddyfile").write_text(
        f"""\
{services.CADDY_OPTIONS}http://:{CADDY_HTTP} {{
  respond "{{remote_host}}"
}}
www.example {{
  tls internal
  respond "{{remote_host}}"
}}
""",
        encoding="utf-8",
    )
    command = ["caddy", "run", "--config", str(home / "Caddyfile"), "--adapter", "caddyfile"]
    paths = {"HOME": home, "XDG_DATA_HOME": home / "data", "XDG_CONFIG_HOME": home / "config"}
    env = {name: str(path) for name, path in paths.items()}
    child = services.start(node, "caddy", command, env=env)
    services.answering(node, "caddy", child, socket.SOCK_STREAM, CADDY_HTTP)
    return services.answering(node, "caddy", child, socket.SOCK_DGRAM, ports.QUIC)
