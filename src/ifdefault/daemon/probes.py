"""Performs probes: opens their sockets, and hands them to the frontend with what is to be sent.

Rules: a socket is closed here as soon as it was handed over. One that can't be opened is a fault of
our own, and told as such: the event is returned.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.ipc.messages import Bind, Message, Send, Unbind
from ifdefault.kernel import open_probe_sockets
from ifdefault.model.address import family_of

Post = Callable[[Message, tuple[int, ...]], None]


def open_socket(effect: f.OpenProbeSocket, post: Post) -> e.SocketFailed | None:
    """A path's ICMP socket, from which all its echo requests leave."""
    source = effect.source
    try:
        with open_probe_sockets.icmp_socket(
            source.family, source.address, source.dev, source.mark
        ) as sock:
            post(Bind(effect.path, source.family), (sock.fileno(),))
    except OSError:
        return e.SocketFailed(effect.path)
    return None


def close_socket(effect: f.CloseProbeSocket, post: Post) -> None:
    post(Unbind(effect.path), ())


def send(effect: f.SendProbe, post: Post) -> e.ProbeOutcome | None:
    """All but echo requests get a socket of their own."""
    message = Send(
        effect.path,
        effect.seq,
        effect.kind,
        effect.address,
        effect.port,
        effect.host,
        effect.query,
        effect.statuses,
        effect.timeout_ms,
    )
    if effect.kind == "icmp":
        post(message, ())
        return None
    try:
        with _socket(effect) as sock:
            post(message, (sock.fileno(),))
    except OSError:
        return e.ProbeOutcome(effect.path, effect.seq, "local")
    return None


def _socket(effect: f.SendProbe) -> socket.socket:
    source = effect.source
    if source is None:
        return open_probe_sockets.unbound_socket(family_of(effect.address))
    make = open_probe_sockets.stream_socket
    if effect.kind == "dns":
        make = open_probe_sockets.datagram_socket
    return make(source.family, source.address, source.dev, source.mark)
