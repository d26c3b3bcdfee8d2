"""Sysctls of this network namespace, by their path below /proc/sys ("net/ipv4/ip_forward").

Rules: the path form, since interface names may hold dots. A missing one reads as None.
"""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/proc/sys")


def read(name: str) -> str | None:
    try:
        return " ".join((_ROOT / name).read_text().split())
    except OSError:
        return None


def write(name: str, value: str) -> None:
    (_ROOT / name).write_text(value)
