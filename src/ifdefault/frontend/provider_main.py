"""The provider helper: a process without any right that brings a name's addresses to a provider.

`python -m ifdefault.frontend.provider_main UID GID`, started by `daemon.dns.programs`; all else is
`frontend.client.provider`.

Rules: it gives up its rights before it reads the credentials, which are its user's to read, or
hears a word of the provider. As in the frontend, what it imports it imports before.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import NoReturn

from ifdefault.frontend.client import provider
from ifdefault.ipc import privileges


def main() -> NoReturn:
    uid, gid = map(int, sys.argv[1:])
    provider.main(partial(privileges.drop, uid, gid))


if __name__ == "__main__":
    main()
