"""What deliveries share: a name lookup with a limit, secrets from files, and words for failures."""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
from ipaddress import ip_address
from pathlib import Path

from ifdefault.model.errors import reason
from ifdefault.monitor.notify.delivery import CONNECT_S, Refused, Stage, Tell

_LONGEST_SECRET = _LONGEST_LINE = 4096


def look_up(host: str, port: int, source: str, tell: Tell) -> None:
    """Raises OSError if a host has no address, none of the family of `source`, or if its name can't
    be looked up in time. The libraries look it up again."""
    tell(Stage(f"looking up {host}"))
    family = socket.AF_UNSPEC
    if source:
        family = socket.AF_INET6 if ip_address(source).version == 6 else socket.AF_INET
    found: list[OSError | None] = []

    def resolve() -> None:
        try:
            socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
            found.append(None)
        except OSError as error:
            found.append(error)
        except UnicodeError:
            found.append(OSError("not a host name"))

    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(CONNECT_S)
    if not found:
        raise TimeoutError(f"no name server answers in {CONNECT_S:g} s")
    if error := found[0]:
        raise error
    tell(Stage(f"connecting to {host}"))


def bound(source: str) -> tuple[str, int] | None:
    return (source, 0) if source else None


def is_loopback(sock: socket.socket) -> bool:
    return ip_address(sock.getpeername()[0].partition("%")[0]).is_loopback


def read_secret(path: str) -> str:
    """The first line of a file."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            secret = file.readline(_LONGEST_SECRET).strip()
    except OSError as error:
        remedy = f"it must be readable by uid {os.geteuid()}"
        raise Refused(f"{path}: can't be read: {reason(error)}; {remedy}") from None
    except UnicodeDecodeError:
        raise Refused(f"{path}: not a text; write the secret on its first line") from None
    if not secret:
        raise Refused(f"{path}: is empty; write the secret on its first line")
    return secret


def words(error: Exception) -> str:
    """Why a connection failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate isn't valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, TimeoutError):
        return str(error) if error.errno is None and str(error) != "timed out" else "no answer"
    if isinstance(error, OSError):
        return reason(error)
    return str(error) or type(error).__name__


def one_line(text: str) -> str:
    """Still longer than what is shown, or the beginning of a secret would be left (`hidden`)."""
    return re.sub(r"\s+", " ", text).strip()[:_LONGEST_LINE]
