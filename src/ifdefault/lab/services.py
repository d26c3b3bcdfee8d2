"""Real servers in a node: nginx, caddy (HTTP/3), unbound, and the lab's own.

Rules: each runs in the foreground with its own config in the world's directory, and ends with the
world. A start returns when the server listens.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ifdefault.lab import ports
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import eventually
from ifdefault.model.errors import HostError, Problem

_PACKAGES = {
    "named": "bind9",
    "kresd": "knot-resolver",
    "pdns_recursor": "pdns-recursor",
}  # Debian packages whose name isn't the program's


def installed(program: str) -> bool:
    return shutil.which(program) is not None


def builtin(node: Node, *, http: bool = False, dns: Sequence[str] = ()) -> subprocess.Popen[str]:
    """TCP echo and every kind of UDP socket on a node's addresses; `http` in place of nginx;
    `dns`: addresses that refuse queries."""
    addresses = node.world.topology.addresses(node.name)
    command = [sys.executable, "-m", "ifdefault.lab.serve", *addresses, *["--http"] * http]
    command += [f"--dns={address}" for address in dns]
    child = start(node, "serve", command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    if child.stdout.readline() != "ready\n":
        raise HostError(f"the lab's own servers didn't start: {_log_tail(node, 'serve')}")
    return child


def nginx(node: Node) -> subprocess.Popen[str]:
    """A web server on port 80 that answers with its own address; `/you` with the client's."""
    home = home_of(node, "nginx")
    temporary = "".join(
        f"  {kind}_temp_path {home}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = home / "nginx.conf"
    config.write_text(
        f"""\
user root;
worker_processes 2;
daemon off;
pid {home}/pid;
error_log stderr warn;
events {{
  worker_connections 8192;
}}
http {{
{temporary}\
  access_log off;
  server {{
    listen {ports.HTTP} backlog=4096 reuseport;
    listen [::]:{ports.HTTP} backlog=4096 reuseport ipv6only=on;
    location = / {{
      return 200 "$server_addr\\n";
    }}
    location = /you {{
      return 200 "$remote_addr\\n";
    }}
    location / {{
      root {home};
    }}
  }}
}}
""",
        encoding="utf-8",
    )
    child = start(node, "nginx", ["nginx", "-e", "stderr", "-p", str(home), "-c", str(config)])
    return answering(node, "nginx", child, socket.SOCK_STREAM, ports.HTTP)


CADDY_OPTIONS = f"""\
{{
  admin off
  auto_https disable_redirects
  local_certs
  skip_install_trust
  default_sni www.example
  https_port {ports.QUIC}
  log {{
    level ERROR
  }}
}}
"""


def caddy(node: Node, bind: Sequence[str] = ()) -> subprocess.Popen[str]:
    """A web server for HTTP/3 on UDP port 443, with its own certificate.

    Caddy 2.6 is a wildcard UDP server: it doesn't use IP_PKTINFO.
    """
    home = home_of(node, "caddy")
    config = home / "Caddyfile"
    config.write_text(
        f"""\
{CADDY_OPTIONS}www.example {{
{f"  bind {' '.join(bind)}" if bind else ""}
  tls internal
  respond "hello"
}}
""",
        encoding="utf-8",
    )
    command = ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"]
    paths = {"HOME": home, "XDG_DATA_HOME": home / "data", "XDG_CONFIG_HOME": home / "config"}
    env = {name: str(path) for name, path in paths.items()}
    child = start(node, "caddy", command, env=env)
    return answering(node, "caddy", child, socket.SOCK_DGRAM, ports.QUIC)


def resolver(
    node: Node, listen: Sequence[str], lines: str, *, name: str = "unbound"
) -> subprocess.Popen[str]:
    """unbound, with more lines of its `server:` clause."""
    home = home_of(node, name)
    interfaces = "".join(f"  interface: {address}\n" for address in listen)
    config = home / "unbound.conf"
    config.write_text(
        f"""\
server:
  username: ""
  chroot: ""
  directory: "{home}"
  pidfile: "{home}/pid"
  use-syslog: no
  do-daemonize: no
  verbosity: 0
  module-config: "iterator"
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
{interfaces}\
{lines}\
remote-control:
  control-enable: no
""",
        encoding="utf-8",
    )
    child = start(node, name, ["unbound", "-d", "-p", "-c", str(config)])
    return answering(node, name, child, socket.SOCK_DGRAM, 53, listen[0])


def home_of(node: Node, name: str) -> Path:
    """Make a server's directory."""
    home = node.world.dir / f"{name}-{node.name}"
    home.mkdir()
    return home


def start(
    node: Node,
    name: str,
    command: Sequence[str],
    *,
    stdout: int | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start a server with its own log file."""
    if not installed(program := command[0]):
        package = _PACKAGES.get(program, program)
        raise HostError(Problem("", f"{program} isn't installed", f"install the package {package}"))
    with (node.world.dir / f"{name}-{node.name}.log").open("w") as log:
        return node.popen(command, stdout=stdout or log, stderr=log, env=env)


def answering(
    node: Node,
    name: str,
    child: subprocess.Popen[str],
    kind: int,
    port: int,
    address: str = "",
) -> subprocess.Popen[str]:
    """Wait until the server listens on a port, of one address if given, or has ended."""
    where = f"src [{address}]:{port}" if address else f"sport = :{port}"
    listing = ["ss", "-Hln", "-t" if kind == socket.SOCK_STREAM else "-u", where]

    def listens() -> bool:
        if child.poll() is not None:
            raise HostError(f"{name} didn't start: {_log_tail(node, name)}")
        return bool(node.run(listing).stdout.strip())

    eventually(listens, what=f"{name} listens")
    return child


def _log_tail(node: Node, name: str) -> str:
    text = (node.world.dir / f"{name}-{node.name}.log").read_text().strip()
    return " / ".join(text.splitlines()[-3:]) or "its log is empty"
