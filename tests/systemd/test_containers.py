"""A container's published port, by real Docker and Podman: what comes in by each uplink is answered
by it, IPv4 and IPv6, also after restarts of what lays the rules.

client ── core ─┬─ isp-a ── wan0 ┬─ host ── container (busybox httpd)
                └─ isp-b ── wan1 ┘

Rules: no registry: the image is the host's own busybox.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

import pytest

from ifdefault.lab.waiting import PATIENCE_S, eventually
from tests.net import answers
from tests.net.watched import await_states
from tests.systemd.booted import Booted
from tests.systemd.conftest import Boot

DAEMON = "ifdefault.service"
PORT = 8080
IMAGE = """\
cd /; mkdir -p srv/etc; echo web >srv/etc/page
tar -c -h -C / bin/busybox -C /srv etc | {0} import - busybox >/dev/null
"""
RUN = "{0} run -d --name web {1} busybox /bin/busybox httpd -f -p 80 -h /etc >/dev/null"
# the host's files are an overlay already
STORAGE = """\
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""


@dataclass(frozen=True, slots=True)
class Engine:
    release: str
    enable: tuple[str, ...]
    files: dict[str, str]
    run: str
    restarts: tuple[str, ...]  # of what lays rules, each of which the container survives


ENGINES = {
    "docker": Engine(
        "bookworm",
        ("docker.service", "containerd.service"),
        {
            "etc/docker/daemon.json": '{"ipv6": true, "fixed-cidr-v6": "fd00:17::/64",'
            ' "ip6tables": true, "experimental": true, "live-restore": true}'
        },
        RUN.format("docker", f"-p {PORT}:80"),
        ("systemctl restart docker",),
    ),
    "podman": Engine(
        "trixie",
        (),
        {"etc/containers/storage.conf": STORAGE},
        "podman network create --ipv6 --disable-dns"
        " --subnet 10.89.9.0/24 --subnet fd00:89::/64 six >/dev/null; "
        + RUN.format("podman", f"--network six -p {PORT}:80 --cgroups=disabled"),
        ("podman network reload -a",),
    ),
}


def page(host: Booted, address: str) -> str:
    """What the client gets from the container by this address of the host."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with host.world["client"].enter():
        sock = socket.socket(family, socket.SOCK_STREAM)
    with sock:
        sock.settimeout(1.0)
        try:
            sock.connect((address, PORT))
            sock.sendall(b"GET /page HTTP/1.0\r\n\r\n")
            return sock.makefile().read().rpartition("\n\n")[2].strip()
        except OSError as error:
            return repr(error)


def assert_published(host: Booted) -> None:
    """By every address of every uplink, repeatedly."""
    every = answers.addresses(host.world)
    got: dict[str, str] = {}

    def is_up() -> bool:
        got.update({address: page(host, address) for address in every})
        return set(got.values()) == {"web"}

    try:
        eventually(is_up, PATIENCE_S, what="the container answers by each address")
    except TimeoutError as error:
        error.add_note(str(got))
        raise
    before = host.world.misrouted()
    assert [(a, page(host, a)) for a in every * 4] == [(a, "web") for a in every * 4]
    assert host.world.misrouted() == before, host.world.refusals()
    answers.assert_answered(host.world, count=1)


@pytest.mark.parametrize("name", ENGINES)
def test_a_published_port(boot: Boot, name: str) -> None:
    engine = ENGINES[name]
    host = boot(release=engine.release, enable=[DAEMON, *engine.enable], files=engine.files)
    host.shell(IMAGE.format(name))
    host.shell(engine.run)
    await_states(host.world, ["up"])
    assert_published(host)
    for restart in engine.restarts:
        host.shell(restart)
        assert_published(host)
    host.systemctl("restart", DAEMON)
    assert_published(host)
    assert host.ifdefault("check").stderr == ""
