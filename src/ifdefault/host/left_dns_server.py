"""A DNS server that a daemon left behind: it still answers though no daemon runs.

Rules: it is known by its pid, which the daemon writes to a file of the run directory.
"""

from __future__ import annotations

from pathlib import Path

DNS_SERVER = "dns-server"  # a file with the pid of the one in use
LEFT_REMEDY = "start the daemon again, or end the server by ifdefault down"


def left_dns_server(run_dir: Path) -> str:
    """What to say of it; "" if there is none. What to do is LEFT_REMEDY."""
    try:
        pid = int((run_dir / DNS_SERVER).read_text("ascii", "replace"))
    except (OSError, ValueError):
        return ""
    from ifdefault.kernel.open_dns_sockets import is_dns_server

    if not is_dns_server(pid):
        return ""
    return f"its DNS server (pid {pid}) still answers, and withdraws no uplink that fails"
