"""The outcome of a probe, and whose fault a failure is.

Rules: an error that the kernel returns at once, before a packet was sent, is this host's ("local")
and no evidence about the path; a later one comes from the network.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from ifdefault.model.health import Verdict


@dataclass(frozen=True, slots=True)
class ProbeOutcome:
    """The outcome of one probe. `detail` is for display, and may contain text from a server."""

    verdict: Verdict
    rtt_us: int = 0
    detail: str = ""


class ProbeError(Exception):
    """The probe failed; the verdict says whose fault that is."""

    def __init__(self, verdict: Verdict, detail: str) -> None:
        super().__init__(detail)
        self.outcome = ProbeOutcome(verdict, 0, detail)


def us_since(start_ns: int) -> int:
    return (time.monotonic_ns() - start_ns) // 1000


def words(code: int | None) -> str:
    return os.strerror(code or 0).lower()


def local(error: OSError) -> ProbeOutcome:
    """The outcome when the kernel refused to send."""
    return ProbeOutcome("local", 0, words(error.errno))
