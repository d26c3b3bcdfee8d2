"""The keys of [web].

Rules: as in `config.base`. What is in the token files is checked on the host.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, Field

from ifdefault.config.base import Keys, absolute, distinct, labels, port_range, reject, toml
from ifdefault.model.config import WebConfig

_WEB = WebConfig()
_LISTEN = re.compile(r"(\[[^]]*\]|[^:]*):([^:]*)")
_LONGEST_PATH = 107  # sun_path, without its final NUL; unix(7)


def _listen(text: str) -> str:
    if text.startswith("/"):
        absolute(text, "/run/ifdefault-web/web.sock")
        if len(text.encode()) > _LONGEST_PATH:
            reject(f"{toml(text)} is too long for a socket", f"use at most {_LONGEST_PATH} bytes")
        return text
    match = _LISTEN.fullmatch(text)
    try:
        address = ip_address(match[1].strip("[]") if match else "")
    except ValueError:
        reject(f"{toml(text)} is not an address with a port", f'write it like "{_WEB.listen}"')
    assert match is not None
    first, last = port_range(match[2], toml(text), _WEB.listen)
    if first != last:
        reject(f"{toml(text)} has a port range", "use one port")
    return f"[{address}]:{first}" if address.version == 6 else f"{address}:{first}"


def _host(text: str) -> str:
    name = text.lower().rstrip(".")
    if not labels(name):
        reject(f"{toml(text)} is not a host name", 'write it like "status.example.net"')
    return name


_TokenFile = Annotated[str, AfterValidator(lambda path: absolute(path, "/etc/ifdefault/web.token"))]


class WebKeys(Keys):
    """The page, the API and the metrics, and who may use them."""

    listen: Annotated[str, AfterValidator(_listen)] = Field(
        default=_WEB.listen,
        description="an address and a port, or the path of a unix socket; default: loopback only",
    )
    hosts: Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], distinct()] = Field(
        default=_WEB.hosts, description="further names by which it may be asked, as for a proxy"
    )
    token_file: _TokenFile = Field(
        default=_WEB.token_file, description="a file with the token that readers must know"
    )
    control_token_file: _TokenFile = Field(
        default=_WEB.control_token_file,
        description="a file with the token that permits changing uplinks; default: nobody may",
    )
