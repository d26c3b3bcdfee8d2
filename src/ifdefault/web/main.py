"""`ifdefault web`: the page, the API and metrics, by a process without any right.

    browser ──> listening socket ──> Guard ──> aiohttp ──> Access ──> pages, API, metrics
                                                             engine <── Live ──┘     └──> history

Rules: it listens, then drops all privileges, and only then reads anything from outside. It speaks
to the engine by the socket that all users have, so that it can do no more than they. The engine's
end isn't its own. SIGTERM ends it.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ifdefault.ipc import log, privileges, sandbox, tasks
from ifdefault.ipc.sd_notify import Notifier
from ifdefault.model.config import WebConfig
from ifdefault.model.errors import HostError, Problem, reason
from ifdefault.web.helper import Command, Files, Helper
from ifdefault.web.settings import Settings

USER = "ifdefault-web"
_BACKLOG = 256
_logger = logging.getLogger("ifdefault")


def run(files: Files, load: Callable[[], None], command: Command) -> int:
    """Serve until SIGTERM or SIGINT; an IfdefaultError if that isn't possible. `load`, `command`:
    see `Helper`."""
    log.set_up()
    uid, gid = privileges.KEEP, privileges.KEEP
    if os.geteuid() == 0:
        uid, gid, warning = privileges.choose_user(USER)
        if warning:
            _logger.warning("%s", warning)
        uid, gid = privileges.possible(uid, gid)
    helper = Helper(files, load, command, uid, gid)
    try:
        settings = helper.settings()
        sock = listen(settings.listen)
        return _serve(files, helper, settings, sock, uid, gid)
    finally:
        helper.close()


def listen(where: str) -> socket.socket:
    """A socket that listens at an address and port, or at the path of a unix socket; HostError."""
    config = WebConfig(listen=where)
    try:
        if config.socket:
            return _listen_at(Path(config.socket))
        host, port = config.address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        remedy = "choose another address, or end what listens there"
        raise HostError(Problem(f"web.listen: {where}", reason(error), remedy)) from None
    return sock


def _listen_at(path: Path) -> socket.socket:
    """A proxy of another user has to connect: what it may see then is what [web] says."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise HostError(Problem(f"web.listen: {path}", "is not a socket", "remove it"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            if other.connect_ex(str(path)) == 0:
                what = "another process listens there"
                raise HostError(Problem(f"web.listen: {path}", what, "end it first"))
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o111)  # of others too; a chmod afterwards might follow a link
    try:
        sock.bind(str(path))
    finally:
        os.umask(umask)
    sock.listen(_BACKLOG)
    return sock


def _serve(
    files: Files, helper: Helper, settings: Settings, sock: socket.socket, uid: int, gid: int
) -> int:
    # after the fork, which is to stay small
    from ifdefault.web.render import Renderer
    from ifdefault.web.server import serve
    from ifdefault.web.site import Site

    renderer, notifier = Renderer(), Notifier()
    readable = [sys.prefix, sys.base_prefix, "/usr", "/lib", "/etc/localtime", str(files.state_dir)]
    readable += [str(files.run_dir), str(Path(__file__).parents[2])]
    for missing in sandbox.enter(sandbox.WEB, uid, gid, readable):
        _logger.warning("the page runs without %s", missing)
    gc.collect()
    with suppress(AttributeError):  # musl has none
        ctypes.CDLL(None).malloc_trim(0)
    gc.freeze()
    helper.sock.setblocking(False)
    sock.setblocking(False)

    async def start() -> int:
        return await serve(Site(files, helper, settings, renderer), sock, notifier)

    return tasks.run(start())
