"""Opens the sockets of probes, and passes them to the frontend, which sends the probes.

Rules: a socket is closed here as soon as it was passed on. If one can't be opened, the probe's
outcome is "local": this host's fault, which is no evidence against the uplink.
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
    """Open a path's ICMP socket, which all its echo requests are sent from."""
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
    """Send a probe. All kinds but ICMP get their own socket."""
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
    open_socket = open_probe_sockets.stream_socket
    if effect.kind == "dns":
        open_socket = open_probe_sockets.datagram_socket
    return open_socket(source.family, source.address, source.dev, source.mark)
