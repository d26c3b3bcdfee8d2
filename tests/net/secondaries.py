"""Real secondaries of our zones: Knot, BIND and NSD, in a node of a lab.

Rules: each has a directory of its own inside the world's, and knows no other zone. It asks again by
itself only after minutes, so that what it has soon it has by NOTIFY. Anybody may transfer from it.
It has an NSID, gives cookies, and answers minimally, where it can.
"""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ifdefault.dns.tsig_key import LoadedKey
from ifdefault.ipc import privileges
from ifdefault.lab import services
from ifdefault.lab.node import Node
from tests.net.dns_cases import ZONE, A, B

KEY = LoadedKey("transfer.example", "hmac-sha256", b"of the secondaries alone")


@contextmanager
def key_file(key: LoadedKey = KEY) -> Iterator[Path]:
    """A key as tsig-keygen writes it, for the frontend's user alone."""
    uid, gid, _ = privileges.choose_user("nobody")
    with TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        path = Path(directory) / "secondary.key"
        path.write_text(bind_key(key))
        path.chmod(0o400)
        os.chown(path, uid, gid)
        yield path


def bind_key(key: LoadedKey) -> str:
    return f'key "{key.name}" {{\n\talgorithm {key.algorithm};\n\tsecret "{_secret(key)}";\n}};\n'


def _secret(key: LoadedKey) -> str:
    return base64.b64encode(key.secret).decode()


def knot(
    node: Node, address: str, key: LoadedKey | None, *, heard: tuple[str, ...] = (A, B)
) -> None:
    """`heard`: it accepts NOTIFY from these addresses."""
    home = services.home_of(node, "knot")
    with_key = f"\n    key: {key.name}" if key else ""
    keys = (
        f"key:\n  - id: {key.name}\n    algorithm: {key.algorithm}\n    secret: {_secret(key)}\n"
        if key
        else ""
    )
    config = home / "knot.conf"
    config.write_text(
        f"""\
server:
    listen: {address}@53
    rundir: {home}
    nsid: knot
log:
  - target: stderr
    any: info
database:
    storage: {home}
{keys}\
remote:
  - id: us
    address: [{A}@53, {B}@53]
    via: {address}{with_key}
acl:
  - id: us
    address: [{", ".join(heard)}]
    action: notify{with_key}
  - id: anybody
    address: 0.0.0.0/0
    action: transfer
template:
  - id: default
    global-module: mod-cookies
zone:
  - domain: {ZONE}
    storage: {home}
    master: us
    acl: [us, anybody]
""",
        encoding="utf-8",
    )
    child = services.start(node, "knotd", ["knotd", "-c", str(config)])
    services.answering(node, "knotd", child, socket.SOCK_DGRAM, 53, address)


def bind(node: Node, address: str, key: LoadedKey | None) -> None:
    home = services.home_of(node, "named")
    with_key = f" key {key.name}" if key else ""
    config = home / "named.conf"
    config.write_text(
        f"""\
{bind_key(key) if key else ""}\
options {{
  directory "{home}";
  pid-file none;
  session-keyfile none;
  listen-on port 53 {{ {address}; }};
  listen-on-v6 {{ none; }};
  recursion no;
  notify no;
  minimal-responses yes;
  server-id "bind";
  allow-transfer {{ any; }};
}};
controls {{ }};
zone "{ZONE}" {{
  type secondary;
  file "zone";
  primaries {{ {A}{with_key}; {B}{with_key}; }};
  transfer-source {address};
  allow-notify {{ {f"key {key.name}" if key else f"{A}; {B}"}; }};
}};
""",
        encoding="utf-8",
    )
    command = ["named", "-g", "-c", str(config), "-n", "1"]
    child = services.start(node, "named", command)
    services.answering(node, "named", child, socket.SOCK_DGRAM, 53, address)


def nsd(node: Node, address: str, key: LoadedKey | None) -> None:
    home = services.home_of(node, "nsd")
    by = key.name if key else "NOKEY"
    keys = (
        f"key:\n  name: {key.name}\n  algorithm: {key.algorithm}\n  secret: {_secret(key)}\n"
        if key
        else ""
    )
    config = home / "nsd.conf"
    config.write_text(
        f"""\
server:
  ip-address: {address}
  server-count: 1
  username: ""
  zonesdir: {home}
  database: ""
  zonelistfile: {home}/zone.list
  xfrdfile: ""
  xfrdir: {home}
  pidfile: ""
  nsid: ascii_nsd
  answer-cookie: yes
  minimal-responses: yes
remote-control:
  control-enable: no
{keys}\
zone:
  name: {ZONE}
  zonefile: zone
  request-xfr: {A} {by}
  request-xfr: {B} {by}
  allow-notify: {A} {by}
  allow-notify: {B} {by}
  outgoing-interface: {address}
  provide-xfr: 0.0.0.0/0 NOKEY
""",
        encoding="utf-8",
    )
    child = services.start(node, "nsd", ["nsd", "-d", "-c", str(config)])
    services.answering(node, "nsd", child, socket.SOCK_DGRAM, 53, address)
