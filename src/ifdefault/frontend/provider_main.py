"""The provider helper: an unprivileged process that publishes a name's addresses at a provider.

`python -m ifdefault.frontend.provider_main UID GID`, started by `daemon.dns.programs`; the rest is
in `frontend.client.provider`.

Rules: it drops its privileges before it reads the credentials, which its user must be able to read,
and before it connects to the provider. As in the frontend, all imports happen before that.
It enters no sandbox: the library of each provider needs something else.
"""

from __future__ import annotations

import resource
import signal
import sys
from functools import partial
from typing import NoReturn

from ifdefault.frontend.client import provider
from ifdefault.ipc import privileges

_LIMITS = {resource.RLIMIT_DATA: 1 << 30}  # more than any provider's library takes


def main() -> NoReturn:
    uid, gid = map(int, sys.argv[1:])
    drop = partial(privileges.drop, uid, gid, limits=_LIMITS, parent_death=signal.SIGKILL)
    provider.main(drop)


if __name__ == "__main__":
    main()
