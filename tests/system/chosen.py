"""Which tests of tests/net run on each kernel, and which of its features each of them needs.

Rules: each kind of behaviour once, by a test that is quick where the processor is emulated. All of
tests/system runs besides.
"""

from __future__ import annotations

CHOSEN = {
    "rules and routes by rtnetlink": ["tests/net/test_rtnetlink.py"],
    "the return path by source, mark and connection tracking": [
        "tests/net/test_return_path.py::test_every_kind_of_traffic_is_answered_on_every_address[two]",
    ],
    "failover": [
        "tests/net/test_failover.py::test_the_default_leaves_a_dead_uplink_and_returns[blackhole]",
    ],
}


def arguments() -> list[str]:
    """What to hand to pytest."""
    return [*(node for nodes in CHOSEN.values() for node in nodes), "tests/system"]
