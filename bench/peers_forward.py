"""Peers of our forwarding, on a host of the world `lan`: HAProxy, and Shorewall with two providers.

Rules: each forwards TCP ports to the server web1, in IPv4, with the settings that its manual
recommends for speed. Both end with their block. Shorewall's files are in the world's directory,
which is mounted on /var/lib/shorewall for its processes alone.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.lan import WEB1
from ifdefault.lab import services
from ifdefault.lab.node import Node
from ifdefault.model.errors import HostError, Problem

_ADDRESSES = ("203.0.113.10", "198.51.100.10")


# --- HAProxy ------------------------------------------------------------------------------

_HAPROXY = """\
global
  maxconn 4000
defaults
  mode tcp
  maxconn 4000
  backlog 4096
  option splice-auto
  option tcp-smart-accept
  option tcp-smart-connect
  timeout connect 5s
  timeout client 30s
  timeout server 30s
"""


@contextmanager
def haproxy(host: Node, ports: Sequence[int]) -> Iterator[None]:
    """In TCP mode, with its default number of threads: one per core."""
    text = _HAPROXY
    for port in ports:
        binds = ",".join(f"{address}:{port}" for address in _ADDRESSES)
        text += f"listen port{port}\n  bind {binds}\n  server web1 {WEB1[0]}:{port}\n"
    config = host.world.dir / "haproxy.cfg"
    config.write_text(text, encoding="utf-8")
    child = services.start(host, "haproxy", ["haproxy", "-db", "-f", str(config)])
    try:
        for port in ports:
            services.answering(host, "haproxy", child, socket.SOCK_STREAM, port)
        yield
    finally:
        child.terminate()
        child.wait()


# --- Shorewall ----------------------------------------------------------------------------

_SHARED = Path("/usr/share/shorewall")
_SHOREWALL = {
    "zones": "fw firewall\nnet ipv4\nloc ipv4\n",
    "interfaces": "?FORMAT 2\nnet wan0\nnet wan1\nloc lan0\n",
    "providers": """\
ispa 1 - - wan0 203.0.113.1 track,primary
ispb 2 - - wan1 198.51.100.1 track,fallback
""",
    "policy": "fw all ACCEPT\nloc all ACCEPT\nnet all DROP\nall all REJECT\n",
    "snat": "MASQUERADE 10.0.0.0/24 wan0\nMASQUERADE 10.0.0.0/24 wan1\n",
}
_AFTERWARDS = """\
nft flush ruleset
ip route flush table 250
ip route del 203.0.113.1
ip route del 198.51.100.1
"""


class Shorewall:
    """Compiled once, so that it starts fast."""

    def __init__(self, host: Node, ports: Sequence[int]) -> None:
        self.host = host
        self.home = host.world.dir / "shorewall"
        (self.home / "var").mkdir(parents=True)
        rules = "".join(f"DNAT net loc:{WEB1[0]} tcp {port}\n" for port in ports)
        files = {
            **_SHOREWALL,
            "rules": f"?SECTION NEW\n{rules}",
            "shorewall.conf": self._settings(),
        }
        for name, text in files.items():
            (self.home / name).write_text(text, encoding="utf-8")
        self.script = str(self.home / "firewall")
        self._run("shorewall", "compile", str(self.home), self.script)

    def _settings(self) -> str:
        """Debian's settings, except for speed and for what would affect other namespaces."""
        try:
            text = (_SHARED / "configfiles" / "shorewall.conf").read_text(encoding="utf-8")
        except FileNotFoundError:
            remedy = "install the package shorewall"
            raise HostError(Problem("", "shorewall isn't installed", remedy)) from None
        changed = {
            "FASTACCEPT": "Yes",
            "DYNAMIC_BLACKLIST": "No",
            "IP_FORWARDING": "On",
            "ROUTE_FILTER": "No",
            "LOG_MARTIANS": "No",
            "KEEP_RT_TABLES": "Yes",
            "CLEAR_TC": "No",
            "AUTOMAKE": "No",
            "CONFIG_PATH": f'"{self.home}:{_SHARED}"',
            "STARTUP_LOG": str(self.home / "log"),
            "LOGFILE": str(self.home / "log"),
            "LOCKFILE": str(self.home / "lock"),
        }
        lines = []
        for line in text.splitlines():
            key = line.partition("=")[0]
            lines.append(f"{key}={changed[key]}" if key in changed else line)
        return "\n".join(lines) + "\n"

    @contextmanager
    def up(self) -> Iterator[None]:
        self._run(self.script, "start")
        try:
            yield
        finally:
            self._run(self.script, "clear")
            # `clear` leaves empty chains, which slow down every packet, and some routes
            self.host.run(["sh", "-c", _AFTERWARDS], check=False)

    def _run(self, *command: str) -> None:
        own = 'mount --bind "$0" /var/lib/shorewall && exec "$@"'
        argv = ["unshare", "--mount", "sh", "-c", own, str(self.home / "var"), *command]
        self.host.run(argv)
