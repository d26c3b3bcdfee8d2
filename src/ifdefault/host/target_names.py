"""The address families that probe targets given by name don't have.

Rules: the system's resolver is asked, as the frontend does it, for all names at once. It can't be
interrupted, so it isn't waited for longer than `WAIT_S` in all. Only its definite answers count;
offline there are none.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from threading import Thread

from ifdefault.model.config import FAMILIES, Family

WAIT_S = 2.0
_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_NO_ADDRESS = {socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY}


def lacking_families(hosts: Iterable[str]) -> dict[str, set[Family]]:
    """The families that each name has no address of, as far as that is known in time."""
    lacking: dict[str, set[Family]] = {host: set() for host in hosts}

    def ask(host: str, family: Family) -> None:
        try:
            socket.getaddrinfo(host, None, _AF[family], socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno in _NO_ADDRESS:
                lacking[host].add(family)
        except (OSError, UnicodeError):
            pass

    threads = [
        Thread(target=ask, args=(host, family), daemon=True)
        for host in lacking
        for family in FAMILIES
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + WAIT_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return {host: set(families) for host, families in lacking.items()}
