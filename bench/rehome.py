"""`rehome`: tunnels, a resolver and an NTP client of the host, while a provider fails and returns.

Rules: measured from outside. Time counts from the change of the kernel's default: by how much
whoever doesn't reconnect by itself follows later. Both variants have the same daemon and fault.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.clock import log
from bench.daemon import Daemon, two_uplinks
from bench.observer import Watch
from bench.results import Figure, Report, Table
from bench.stats import median
from ifdefault.lab import faults, services
from ifdefault.lab.node import Node
from ifdefault.lab.topology import load
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError, Problem

TARGET_S = 1.0
_TRIALS, _TRIALS_BEFORE = 5, 3
_LIMIT_S = 30.0
_EVERY_S = 0.02
_CLIENT = "198.18.1.10"
_UPLINKS = {"203.0.113.10": "wan0", "198.51.100.10": "wan1"}
_WIREGUARD, _OPENVPN, _DNS, _NTP = 51820, 1194, 5300, 123
_HOW = f"""\
The lab's world `two`. At a random time the provider of the first uplink stops forwarding
(*blackhole*), and later forwards again. Each time the host's default moves, *alive* is how long
after that the first datagram that was sent then came back: through a tunnel, from the host and
from the other end, every {_EVERY_S * 1000:.0f} ms. *Moved* is how long after it the first packet of
the tunnel left by the new uplink. {_TRIALS} trials, {_TRIALS_BEFORE} with nothing done.

**WireGuard** is wireguard-go, as this machine's kernel has none; the host dials, without
PersistentKeepalive. **OpenVPN** is a client with `nobind`, by UDP; the server has no `float`: with
TLS it knows its clients by a number (peer-id) since 2.4, with a static key and no `remote` it
answers whoever has the key.
**unbound** forwards to a server beyond the providers, and is asked for a new name every
{_EVERY_S * 1000:.0f} ms. **chrony** asks a server beyond the providers every 0.5 s.

*Nothing done*: the daemon has `on_down = "keep"`, and finds no `wg`. What isn't alive
after {_LIMIT_S:g} s counts as {_LIMIT_S:g} s."""


@dataclass(slots=True)
class Echoes:
    """Datagrams to an echo server, and when each was sent and came back."""

    trips: list[tuple[float, float]] = field(default_factory=list)

    def alive_s(self, since_s: float) -> float | None:
        """When the first came back of those that were sent since then."""
        return min((back for sent, back in self.trips if sent >= since_s), default=None)


@dataclass(slots=True)
class Outer:
    """When packets reached the client's uplink, by port, and from which of the host's addresses."""

    seen: list[tuple[float, int, str]] = field(default_factory=list)

    def moved_s(self, port: int, dev: str, since_s: float) -> float | None:
        times = (at for at, to, source in self.seen if to == port and _UPLINKS.get(source) == dev)
        return min((at for at in times if at >= since_s), default=None)


def _udp(node: Node, address: str, port: int = 0) -> socket.socket:
    with node.enter():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, port))
    sock.settimeout(0.1)
    return sock


@contextmanager
def _running(work: Callable[[threading.Event], None]) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _serve(sock: socket.socket, answer: Callable[[bytes], bytes]) -> Callable[..., None]:
    def work(stop: threading.Event) -> None:
        while not stop.is_set():
            with suppress(OSError):
                data, sender = sock.recvfrom(4096)
                sock.sendto(answer(data), sender)

    return work


def _ask(
    sock: socket.socket, to: tuple[str, int], echoes: Echoes, dns: bool
) -> Callable[..., None]:
    def work(stop: threading.Event) -> None:
        sent: dict[int, float] = {}
        number, next_s = 0, time.monotonic()
        sock.settimeout(_EVERY_S / 4)
        while not stop.is_set():
            if (now := time.monotonic()) >= next_s:
                number, next_s = number + 1 & 0xFFFF, next_s + _EVERY_S
                sent[number] = now
                with suppress(OSError):
                    sock.sendto(_query(number) if dns else number.to_bytes(2), to)
            with suppress(OSError):
                data = sock.recv(4096)
                failed = dns and data[3] & 15
                if not failed and (at := sent.pop(int.from_bytes(data[:2]), None)):
                    echoes.trips.append((at, time.monotonic()))

    return work


def _query(number: int) -> bytes:
    label = f"n{random.getrandbits(48):x}".encode()
    name = bytes([len(label)]) + label + b"\4zone\0"
    return struct.pack("!HHHHHH", number, 0x100, 1, 0, 0, 0) + name + struct.pack("!HH", 1, 1)


def _resolve(query: bytes) -> bytes:
    """192.0.2.1, whatever the name."""
    end = query.index(b"\0", 12) + 5
    head = query[:2] + struct.pack("!HHHHH", 0x8580, 1, 1, 0, 0)
    record = struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton("192.0.2.1")
    return head + query[12:end] + record


def _watch(node: Node, outer: Outer) -> Callable[..., None]:
    with node.enter():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    sock.settimeout(0.1)

    def work(stop: threading.Event) -> None:
        while not stop.is_set():
            with suppress(OSError):
                data, where = sock.recvfrom(64)
                if where[2] != 4 and data[9] == socket.IPPROTO_UDP:
                    port = int.from_bytes(data[22:24])
                    outer.seen.append((time.monotonic(), port, socket.inet_ntoa(data[12:16])))
        sock.close()

    return work


# --- subjects --------------------------------------------------------------------------------


def _wireguard(world: World) -> tuple[str, str]:
    keys = {}
    names = {"host": f"wg{world.name}h", "client": f"wg{world.name}c"}
    for node, name in names.items():
        services.start(world[node], "wireguard", ["wireguard-go", "--foreground", name])
        eventually(Path(f"/var/run/wireguard/{name}.sock").exists, what="wireguard-go listens")
        secret = world[node].run(["wg", "genkey"]).stdout
        keys[node] = secret, world[node].run(["wg", "pubkey"], stdin=secret).stdout.strip()
    ends = ("10.9.0.1", "10.9.0.2")
    for (node, name), own, peer in zip(names.items(), ends, ("client", "host"), strict=True):
        command = f"wg set {name} listen-port {_WIREGUARD} private-key /dev/stdin peer"
        command += f" {keys[peer][1]} allowed-ips 10.9.0.0/24"
        command += f" endpoint {_CLIENT}:{_WIREGUARD}" if node == "host" else ""
        world[node].run(command.split(), stdin=keys[node][0])
        world[node].ip(f"address add {own}/24 dev {name}\nlink set {name} up\n")
    return ends


def _openvpn(world: World, *, tls: bool) -> tuple[str, str]:
    folder, port = world.dir, _OPENVPN + (not tls)
    net, kind = ("10.8.0", "tls") if tls else ("10.7.0", "static")
    ends = (f"{net}.2", f"{net}.1")
    common = f"--dev tun{kind} --dev-type tun --proto udp --keepalive 10 60 --verb 1 --cd {folder}"
    common += " --persist-tun --persist-key"
    near = f"--nobind --remote {_CLIENT} {port}"
    far = f"--local {_CLIENT} --port {port}"
    if tls:
        prints = {}
        for who in ("near", "far"):
            made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
            made += f" -days 30 -subj /CN={who} -keyout {folder}/{who}.key -out {folder}/{who}.crt"
            world["client"].run(made.split())
            shown = f"openssl x509 -fingerprint -sha256 -noout -in {folder}/{who}.crt"
            prints[who] = world["client"].run(shown.split()).stdout.strip().partition("=")[2]
        near += f" --client --cert near.crt --key near.key --peer-fingerprint {prints['far']}"
        far += f" --server {net}.0 255.255.255.0 --topology subnet --dh none"
        far += f" --cert far.crt --key far.key --peer-fingerprint {prints['near']}"
    else:
        world["client"].run(["openvpn", "--genkey", "secret", f"{folder}/static.key"])
        secret = "--secret static.key --cipher AES-256-CBC"
        near += f" {secret} --ifconfig {ends[0]} {ends[1]}"
        far += f" {secret} --ifconfig {ends[1]} {ends[0]}"
    services.start(world["client"], f"openvpn-{kind}", ["openvpn", *common.split(), *far.split()])
    services.start(world["host"], f"openvpn-{kind}", ["openvpn", *common.split(), *near.split()])
    up = f"ip -4 -o address show dev tun{kind}".split()
    for node, own in zip(("host", "client"), ends, strict=True):
        eventually(partial(_has, world[node], up, own), 30.0, what="OpenVPN is up")
    return ends


def _has(node: Node, listing: Sequence[str], address: str) -> bool:
    return address in node.run(listing, check=False).stdout


def _unbound(world: World) -> None:
    config = world.dir / "unbound.conf"
    config.write_text(f"""\
server:
  interface: 127.0.0.1
  do-daemonize: no
  use-syslog: no
  chroot: ""
  username: ""
  pidfile: "{world.dir}/unbound.pid"
  module-config: "iterator"
forward-zone:
  name: "."
  forward-addr: {_CLIENT}@{_DNS}
""")
    child = services.start(world["host"], "unbound", ["unbound", "-d", "-c", str(config)])
    services.answering(world["host"], "unbound", child, socket.SOCK_DGRAM, 53, "127.0.0.1")


def _chrony(world: World) -> None:
    for node, what in (("client", "local stratum 3\nallow all"), ("host", _SERVER)):
        config = world.dir / f"chrony-{node}.conf"
        files = f"pidfile {world.dir}/chrony-{node}.pid\nbindcmdaddress /\ncmdport 0\n"
        config.write_text(f"{what}\n{files}")
        services.start(
            world[node], "chrony", ["chronyd", "-d", "-x", "-u", "root", "-f", str(config)]
        )


_SERVER = f"server {_CLIENT} minpoll -1 maxpoll -1 iburst"


# --- trials ----------------------------------------------------------------------------------


def run() -> Report:
    samples: dict[str, dict[str, list[float]]] = {"ifdefault": {}, "nothing done": {}}
    worlds = [("ifdefault", _TRIALS), *[("nothing done", 1)] * _TRIALS_BEFORE]
    for variant, trials in worlds:  # without us a tunnel doesn't return for a second trial
        log(f"{variant}, {trials} trials")
        with World.up(load("two")) as world, ExitStack() as stack:
            _measure(world, stack, variant == "ifdefault", trials, samples[variant])
    rows, figures = [], []
    for what, ours in samples["ifdefault"].items():
        before = samples["nothing done"][what]
        rows.append((what, *map(_shown, (median(ours), max(ours), median(before), max(before)))))
        figures.append(Figure(f"{what}: longest", max(ours), "s", TARGET_S))
        figures.append(Figure(f"{what}: nothing done, median", median(before), "s"))
    heads = ("", "median", "longest", "nothing done: median", "longest")
    return Report(
        "Tunnels follow the default",
        _HOW,
        tuple(figures),
        (Table("After the default has moved", heads, tuple(rows)),),
        samples,
    )


def _shown(value_s: float) -> str:
    if value_s >= _LIMIT_S:
        return f"not in {_LIMIT_S:g} s"
    return f"{value_s * 1000:.0f} ms" if value_s < 1 else f"{value_s:.1f} s"


Ask = Callable[[float], float | None]  # when something was so for the first time, since a time


def _measure(
    world: World, stack: ExitStack, ours: bool, trials: int, results: dict[str, list[float]]
) -> None:
    health = f'[health]\nrecover_s = 1\ndamp_s = 1\non_down = "{"end" if ours else "keep"}"\n'
    without_wg = () if ours else ("env", f"PATH={world.dir}")
    Daemon(world, f"{two_uplinks()}\n{health}", without_wg).start()
    alive, moved = _start(world, stack)
    watch = Watch(world["host"], "route", _CLIENT)
    stack.callback(watch.close)
    for _ in range(trials):
        for what, ask in alive.items():
            eventually(partial(ask, time.monotonic()), 60.0, what=f"{what} answers")
        time.sleep(2 + random.random())
        asks = alive | {"chrony, moved": partial(moved["chrony"], "wan1")}
        _follow(world, watch, "failure", "wan1", asks, results)
        asks = {f"{what}, moved": partial(ask, "wan0") for what, ask in moved.items()}
        _follow(world, watch, "return", "wan0", asks | {"unbound": alive["unbound"]}, results)


def _start(
    world: World, stack: ExitStack
) -> tuple[dict[str, Ask], dict[str, Callable[[str, float], float | None]]]:
    """Start all subjects. Whether they are alive, and whether they have moved to an interface."""
    host, client = world["host"], world["client"]
    alive: dict[str, Ask] = {}

    def ask(what: str, sock: socket.socket, to: tuple[str, int], *, dns: bool = False) -> None:
        echoes = Echoes()
        stack.enter_context(_running(_ask(sock, to, echoes, dns)))
        alive[what] = echoes.alive_s

    def echo(what: str, near: Node, own: str, far: Node, peer: str) -> None:
        server = _udp(far, peer, 7000)
        stack.enter_context(_running(_serve(server, lambda data: data)))
        ask(what, _udp(near, own, 7001), (peer, 7000))

    tunnels = {
        "WireGuard": (_wireguard(world), _WIREGUARD),
        "OpenVPN, TLS": (_openvpn(world, tls=True), _OPENVPN),
        "OpenVPN, static key": (_openvpn(world, tls=False), _OPENVPN + 1),
    }
    for what, ((own, peer), _) in tunnels.items():
        echo(f"{what}, from the host", host, own, client, peer)
        echo(f"{what}, from the other end", client, peer, host, own)
    stack.enter_context(_running(_serve(_udp(client, _CLIENT, _DNS), _resolve)))
    _unbound(world)
    _chrony(world)
    ask("unbound", _udp(host, "127.0.0.1"), ("127.0.0.1", 53), dns=True)
    outer = Outer()
    stack.enter_context(_running(_watch(client, outer)))
    ports = {what: port for what, (_, port) in tunnels.items()} | {"chrony": _NTP}
    return alive, {what: partial(outer.moved_s, port) for what, port in ports.items()}


def _follow(
    world: World,
    watch: Watch,
    way: str,
    dev: str,
    asks: dict[str, Ask],
    results: dict[str, list[float]],
) -> None:
    """The provider fails or returns; how long after the default each of these follows."""
    since_s = time.monotonic()
    (faults.inject if way == "failure" else faults.remove)(world, "blackhole", "isp-a")
    at_s = watch.when(_CLIENT, dev.__eq__, since_s, 60.0)
    if at_s is None:
        raise HostError(Problem("", f"the default never left by {dev}"))
    for what, ask in asks.items():
        results.setdefault(f"{way}: {what}", []).append(_await(ask, at_s))


def _await(ask: Ask, at_s: float) -> float:
    """How long after a time that is so for the first time, at most the limit."""
    while (found := ask(at_s)) is None and time.monotonic() < at_s + _LIMIT_S:
        time.sleep(0.05)
    return min(found - at_s, _LIMIT_S) if found is not None else _LIMIT_S
