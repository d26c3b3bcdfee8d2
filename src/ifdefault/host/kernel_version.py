"""Whether the kernel is new enough.

Rules: said before anything is changed, since an older one would refuse some of the operations.
Linux 5.8 has all that is used without a way around: rules with a protocol (4.17), pidfds (5.3),
filtered dumps of conntrack and what `balance` needs (5.8).
"""

from __future__ import annotations

import os
import re

from ifdefault.model.errors import HostError, Problem

OLDEST = (5, 8)


def require(release: str = "") -> None:
    """Raise HostError if it is too old. A release that isn't understood is taken for new."""
    release = release or os.uname().release
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers and tuple(map(int, numbers.groups())) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        what = f"version {release} is too old; nothing was changed"
        raise HostError(Problem("kernel", what, f"boot Linux {needed} or newer"))
