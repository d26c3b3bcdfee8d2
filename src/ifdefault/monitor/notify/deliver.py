"""Deliveries: processes that send one message each, forked from one that does nothing else.

    monitor ──a socket for each delivery──> deliverer ──fork──> delivery ──> a mail server, a URL …

Rules: the deliverer is forked before the monitor has threads and gives up its privileges, since it
may not be able to execute its own Python afterwards. It loads all that a delivery needs, drops its
privileges too, and reads nothing but requests to fork. A delivery ends itself at its time limit,
with what it runs, and is killed with the deliverer, as that is with the monitor. An exception that
nobody expected is an outcome as well.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
from contextlib import suppress
from types import MappingProxyType
from typing import NoReturn

from ifdefault.ipc import codec, privileges
from ifdefault.model.errors import HostError, Problem, internal
from ifdefault.monitor.notify.delivery import (
    LONGEST_TEXT,
    Delivery,
    Outcome,
    Refused,
    Stage,
    Tell,
    Unknown,
    encode_report,
    read_delivery,
)

KEEP = (privileges.KEEP, privileges.KEEP)  # the user of this process
_LIMITS = MappingProxyType({resource.RLIMIT_DATA: 1 << 30})  # more than apprise takes
_SPARE_S = 1.0  # the monitor ends it before it ends itself
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM)


class Deliverer:
    """The monitor's end. `user`: of the deliveries, as (uid, gid)."""

    def __init__(self, user: tuple[int, int] = KEEP) -> None:
        self._sock, theirs = socket.socketpair()
        self._pid = os.fork()
        if not self._pid:
            _serve(theirs, *user)
        theirs.close()

    def open(self) -> socket.socket:
        """A socket to a new delivery."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._sock, [b"\0"], [theirs.fileno()])
            except OSError:
                ours.close()
                what, remedy = "the process that sends ended", "restart the monitor"
                raise HostError(Problem("notify", what, remedy)) from None
        return ours

    def close(self) -> None:
        self._sock.close()
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _serve(sock: socket.socket, uid: int, gid: int) -> NoReturn:
    """The deliverer, which nothing but this leaves."""
    try:
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the monitor
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for deliveries
        _close_others(sock.fileno())
        _load()
        privileges.drop(uid, gid, limits=_LIMITS, parent_death=signal.SIGKILL)
        while True:
            data, fds, _, _ = socket.recv_fds(sock, 1, 1)
            if not data:
                os._exit(0)
            for fd in fds:  # none if there was no memory for it
                with suppress(OSError):  # too many processes: the monitor sees that it has ended
                    if os.fork() == 0:
                        sock.close()
                        _deliver(socket.socket(fileno=fd))
                os.close(fd)
    finally:
        os._exit(os.EX_SOFTWARE)


def _close_others(fd: int) -> None:
    """All descriptors but this, and stderr."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.closerange(3, fd)
    os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX"))


def _load() -> None:
    """What a delivery needs, and may not be able to read any more."""
    import encodings.idna
    import smtplib

    from ifdefault.monitor.notify import apprise, hidden, http, mail

    assert all((encodings.idna, smtplib, apprise, hidden, http, mail))


def _deliver(sock: socket.socket) -> NoReturn:
    """The delivery, which nothing but this leaves."""
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
        privileges.drop(*KEEP, parent_death=signal.SIGKILL)
        with sock.makefile("rb") as file:
            delivery = read_delivery(codec.read(file.read()))
        signal.setitimer(signal.ITIMER_REAL, delivery.limit_s + _SPARE_S)

        def tell(stage: Stage) -> None:
            sock.sendall(encode_report(stage))

        sock.sendall(encode_report(deliver(delivery, tell)))
        os._exit(0)
    finally:
        os._exit(os.EX_SOFTWARE)


def deliver(delivery: Delivery, tell: Tell) -> Outcome:
    """Send it; say how that ended, without secrets."""
    from ifdefault.monitor.notify.hidden import hide

    outcome = _outcome(delivery, tell)
    return Outcome(outcome.kind, hide(outcome.text, delivery.config)[:LONGEST_TEXT])


def _outcome(delivery: Delivery, tell: Tell) -> Outcome:
    import smtplib

    from ifdefault.monitor.notify.connect import one_line, words

    stage, sent = Stage("starting"), False

    def note(new: Stage) -> None:
        nonlocal stage, sent
        stage, sent = new, sent or new.sends
        tell(new)

    try:
        return Outcome("delivered", one_line(_send(delivery, note)))
    except Refused as error:
        return Outcome("refused", str(error))
    except Unknown as error:
        return Outcome("unknown", str(error))
    except (OSError, smtplib.SMTPException) as error:
        text = one_line(f"{stage.text}: {words(error)}")
        return Outcome("unknown" if sent else "unreachable", text)
    except Exception as error:  # noqa: BLE001  the libraries have many
        return Outcome("unknown" if sent else "refused", one_line(internal(error)))


def _send(delivery: Delivery, tell: Tell) -> str:
    from ifdefault.monitor.notify import apprise, http, mail

    config = delivery.config
    if config.mail:
        return mail.send(delivery, tell)
    if config.apprise:
        return apprise.send(delivery, tell)
    if config.webhook or config.webhook_file:
        return http.send_webhook(delivery, tell)
    return http.send_ntfy(delivery, tell)
