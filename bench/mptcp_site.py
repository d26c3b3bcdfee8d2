"""The host of `mptcp`: nginx and HAProxy, which Debian's mptcpize has speak MPTCP, and endpoints.

Rules: nginx limits the rate of downloads to one block every EVERY_S, so that they last; HAProxy
stands before the same nginx. Uploads go through both to the sink. Whoever announces endpoints, the
routes and rules are ifdefault's, whose daemon runs.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from bench.daemon import Daemon, two_uplinks
from bench.mptcp_clients import (
    BLOCK,
    DATA_PATH,
    EVERY_S,
    IDLE_PATH,
    RATE,
    SINK_PATH,
    Plan,
    Spec,
    Transfer,
)
from ifdefault.lab import ports, services
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError, Problem

NGINX, HAPROXY = "nginx", "HAProxy"
PORTS = {NGINX: ports.HTTP, HAPROXY: 8080}
TCP_PORT = 8081  # an nginx that doesn't speak MPTCP
_SINK = 7100
_IDLE_BYTES = 1000
_ENDPOINTS = {
    "203.0.113.10": "wan0",
    "2001:db8:a::10": "wan0",
    "198.51.100.10": "wan1",
    "2001:db8:b::10": "wan1",
}
_LIMITS = "subflow 8 add_addr_accepted"

_NGINX = """\
user root;
worker_processes 2;
daemon off;
pid {home}/pid;
error_log stderr crit;
events {{
  worker_connections 8192;
}}
http {{
{temporary}\
  access_log off;
  keepalive_timeout 300s;
  send_timeout 120s;
  proxy_read_timeout 120s;
  client_body_timeout 120s;
  client_max_body_size 0;
  server {{
    listen {port} backlog=4096 reuseport;
    listen [::]:{port} backlog=4096 reuseport ipv6only=on;
    root {home};
    location = / {{
      return 200 "$server_addr\\n";
    }}
    location = {data} {{
      sendfile on;
      sendfile_max_chunk {block};
      limit_rate {rate};
    }}
    location = {idle} {{
    }}
    location = {sink} {{
      proxy_pass http://127.0.0.1:{sink_port};
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_buffering off;
    }}
  }}
}}
"""
_HAPROXY = """\
global
  maxconn 4000
defaults
  mode http
  maxconn 4000
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  timeout http-keep-alive 300s
frontend web
  bind 0.0.0.0:{port},[::]:{port} v6only
  use_backend sink if {{ path {sink} }}
  default_backend nginx
backend nginx
  server nginx 127.0.0.1:{nginx_port}
backend sink
  server sink 127.0.0.1:{sink_port}
"""


class Site:
    """A world with its servers, and the daemon with so much more of its config."""

    def __init__(self, world: World, more: str = "", *, last_s: float) -> None:
        self.world, self.host, self.client = world, world["host"], world["client"]
        data = random.Random(1).randbytes(int(last_s / EVERY_S) * BLOCK)
        home = self._home = services.home_of(self.host, "nginx")
        self.data = home / DATA_PATH[1:]
        self.data.write_bytes(data)
        (home / IDLE_PATH[1:]).write_bytes(data[:_IDLE_BYTES])
        _start_sink(self.host, self.data)
        nginx(self.host, home, PORTS[NGINX])
        _haproxy(self.host)
        self.accept(8)
        self.daemon = Daemon(world, two_uplinks() + more)
        self.daemon.start()

    def accept(self, addresses: int) -> None:
        """Set how many announced addresses the clients accept."""
        self.client.run(["ip", "mptcp", "limits", "set", *_LIMITS.split(), str(addresses)])

    def add_tcp_server(self) -> None:
        """An nginx that doesn't speak MPTCP, on TCP_PORT."""
        nginx(self.host, self._home, TCP_PORT, mptcp=False)

    def announce(self) -> None:
        """An endpoint for each address, as an administrator adds them by hand."""
        self.host.run(["ip", "mptcp", "limits", "set", *_LIMITS.split(), "0"])
        for address, dev in _ENDPOINTS.items():
            argv = ["ip", "mptcp", "endpoint", "add", address, "dev", dev, "signal"]
            self.host.run(argv)

    def counters(self, node: str = "host") -> dict[str, int]:
        """The kernel's MPTCP counters."""
        text = self.world[node].python(Path("/proc/thread-self/net/netstat").read_text)
        names, values = (line.split()[1:] for line in text.splitlines() if line[:6] == "MPTcpE")
        return dict(zip(names, map(int, values), strict=True))


class Clients:
    """`bench.mptcp_clients`, running."""

    def __init__(self, site: Site, plan: Plan) -> None:
        self._out = (site.world.dir / "clients.json").open("w+")
        command = [sys.executable, "-m", "bench.mptcp_clients"]
        self._child = site.client.popen(command, stdin=subprocess.PIPE, stdout=self._out)
        self._say(json.dumps(asdict(plan)))
        eventually(self._is_ready, what="all connections have begun")

    def _is_ready(self) -> bool:
        if self._child.poll() is not None:
            raise HostError("the clients ended")
        return Path(self._out.name).read_text() == "ready\n"

    def use(self) -> None:
        """Have the idle connections used."""
        self._say("use")

    def _say(self, line: str) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def result(self) -> list[Transfer]:
        """Wait until all have ended."""
        self._child.wait(120)
        with self._out:
            rows = json.loads(Path(self._out.name).read_text().partition("\n")[2])
        return [Transfer(**{**row, "spec": Spec(**row["spec"])}) for row in rows]


def nginx(host: Node, home: Path, port: int, *, mptcp: bool = True) -> subprocess.Popen[str]:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    config = home / f"nginx-{port}.conf"
    text = _NGINX.format(
        home=home,
        temporary="".join(f"  {kind}_temp_path {home}/{kind};\n" for kind in kinds),
        port=port,
        data=DATA_PATH,
        block=BLOCK,
        rate=RATE,
        idle=IDLE_PATH,
        sink=SINK_PATH,
        sink_port=_SINK,
    )
    config.write_text(text.replace("/pid;", f"/pid-{port};"), encoding="utf-8")
    command = ["nginx", "-e", "stderr", "-p", str(home), "-c", str(config)]
    child = services.start(host, f"nginx-{port}", mptcpized(command) if mptcp else command)
    return services.answering(host, f"nginx-{port}", child, socket.SOCK_STREAM, port)


def mptcpized(command: list[str]) -> list[str]:
    if not services.installed("mptcpize"):
        raise HostError(Problem("", "mptcpize isn't installed", "install the package mptcpize"))
    return ["mptcpize", "run", *command]


def _haproxy(host: Node) -> None:
    config = host.world.dir / "haproxy.cfg"
    text = _HAPROXY.format(
        port=PORTS[HAPROXY], sink=SINK_PATH, nginx_port=PORTS[NGINX], sink_port=_SINK
    )
    config.write_text(text, encoding="utf-8")
    child = services.start(host, "haproxy", mptcpized(["haproxy", "-db", "-f", str(config)]))
    services.answering(host, "haproxy", child, socket.SOCK_STREAM, PORTS[HAPROXY])


def _start_sink(host: Node, data: Path) -> None:
    command = [sys.executable, "-m", "bench.mptcp_sink", str(_SINK), str(data)]
    child = services.start(host, "sink", command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    if child.stdout.readline() != "ready\n":
        raise HostError("the sink didn't start")
