"""The peers of WireGuard's tunnels, of the kernel's and of wireguard-go's, by wg(8).

Rules: wg knows both, and is the only program needed. It prints secret keys as well, which are
dropped at once. Every call has an end.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ifdefault.model.kernel import Link

_SOCKETS = Path("/var/run/wireguard")  # wireguard-go's and others', by the tunnel's name
_TIMEOUT_S = 2.0
_PEERS_AT_ONCE = 200  # of one command
_KEEPALIVE_S = "25"  # for a moment; any will do


@dataclass(frozen=True, slots=True)
class Peer:
    """`address` and `port` are its endpoint's; `handshake_s`: since the epoch, 0: none yet."""

    tunnel: str
    key: str  # public
    address: str
    port: int
    keepalive_s: int = 0
    handshake_s: int = 0
    allowed: tuple[str, ...] = ()
    own_port: int = 0
    mark: int = 0

    @property
    def is_dialled(self) -> bool:
        """Whether this host keeps the tunnel up, as far as can be seen: clients that dial in have
        single addresses, and their own side keeps them alive."""
        return self.keepalive_s > 0 or any(not p.endswith(("/32", "/128")) for p in self.allowed)


def program() -> str | None:
    return shutil.which("wg")


def tunnels(links: Sequence[Link]) -> tuple[str, ...]:
    """The interfaces that are WireGuard's."""
    return tuple(
        link.name
        for link in links
        if link.kind == "wireguard" or (link.kind == "tun" and _socket(link.name).exists())
    )


def _socket(tunnel: str) -> Path:
    return _SOCKETS / f"{tunnel}.sock"


def peers(tunnel: str) -> tuple[Peer, ...]:
    """Its peers that have an endpoint. OSError if wg can't be run or hangs."""
    own, *rows = (line.split("\t") for line in _run(["show", tunnel, "dump"]).splitlines())
    own_port, mark = map(_number, own[2:4])
    return tuple(
        Peer(
            tunnel,
            key,
            address.strip("[]"),
            int(port),
            _number(keepalive),
            _number(handshake),
            tuple(allowed.split(",")),
            own_port,
            mark,
        )
        for key, _, endpoint, allowed, handshake, _, _, keepalive in rows
        for address, colon, port in (endpoint.rpartition(":"),)
        if colon
    )


def set_anew(peer: Peer, *, greet: bool) -> list[str]:
    """Arguments of `wg set` that set a peer's endpoint to what it is, by which WireGuard forgets
    from which address it has reached it. `greet`: send it a keepalive at once, so that it learns
    where this host is now; one is sent when they are switched on."""
    of_peer = ["peer", peer.key]
    end = f"[{peer.address}]:{peer.port}" if ":" in peer.address else f"{peer.address}:{peer.port}"
    arguments = [*of_peer, "endpoint", end]
    if greet:
        before = str(peer.keepalive_s)
        for keepalive_s in dict.fromkeys(("0", before if peer.keepalive_s else _KEEPALIVE_S)):
            arguments += [*of_peer, "persistent-keepalive", keepalive_s]
        if not peer.keepalive_s:
            arguments += [*of_peer, "persistent-keepalive", "0"]
    return arguments


def change(tunnel: str, changes: Sequence[list[str]]) -> None:
    """`wg set` of a tunnel's peers. OSError if it fails or hangs."""
    for first in range(0, len(changes), _PEERS_AT_ONCE):
        some = changes[first : first + _PEERS_AT_ONCE]
        _run(["set", tunnel, *(argument for one in some for argument in one)])


def _number(text: str) -> int:
    return 0 if text == "off" else int(text, 0)


def _run(arguments: Sequence[str]) -> str:
    wg = program()
    if wg is None:
        raise FileNotFoundError("wg is missing")
    try:
        done = subprocess.run(
            [wg, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"wg gave no answer in {_TIMEOUT_S:g} s") from None
    if done.returncode:
        raise OSError(done.stderr.strip()[:200] or f"wg ended with status {done.returncode}")
    return done.stdout
