"""Sysctls: which are set, and the order in which they are set and reset."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import Desired, Facts, Operation, SetSysctl
from ifdefault.plan.connmark import ForwardedFlows
from ifdefault.plan.diff import diff
from ifdefault.plan.originals import with_originals
from ifdefault.plan.prepare import prepare_down
from ifdefault.plan.ruleset import Needs
from ifdefault.plan.settings import REDIRECTS, sysctls, without_read_only
from tests.unit.test_ruleset import HOST, A

BEFORE = {
    "net/ipv4/conf/all/rp_filter": "1",
    "net/ipv4/conf/wan0/rp_filter": "0",
    "net/ipv4/conf/wan0/src_valid_mark": "0",
    "net/ipv6/conf/wan0/accept_ra": "1",
    REDIRECTS: "1",
    "net/ipv4/ip_forward": "0",
    "net/ipv6/conf/all/forwarding": "0",
}
LAN = ForwardedFlows(needed=(4, 6), lans=("lan0",), masquerade=("lan0",))


def wanted(
    now: dict[str, str], forwarded: ForwardedFlows | None = LAN
) -> tuple[tuple[str, str], ...]:
    facts = Facts(sysctls=tuple(now.items()))
    return tuple(sysctls(facts, Needs(HOST, (A,), {}, (), forwarded=forwarded)))


def operations(now: dict[str, str], desired: Desired) -> tuple[Operation, ...]:
    return diff(Facts(sysctls=tuple(now.items())), desired, ())


def performed(now: dict[str, str], todo: tuple[Operation, ...]) -> dict[str, str]:
    """Like the kernel: forwarding and redirects are mutually exclusive."""
    for operation in todo:
        assert isinstance(operation, SetSysctl)
        if operation.name == "net/ipv4/ip_forward":
            now = now | {REDIRECTS: str(1 - int(operation.value))}
        now = now | {operation.name: operation.value}
    return now


@pytest.mark.parametrize("redirects", ["0", "1"])
@pytest.mark.parametrize("advertisements", ["0", "1", "2"])
def test_there_and_back(redirects: str, advertisements: str) -> None:
    """What was said before is what is there after, and all is wanted as it is then."""
    before = BEFORE | {REDIRECTS: redirects, "net/ipv6/conf/wan0/accept_ra": advertisements}
    todo = operations(before, Desired(sysctls=wanted(before)))
    after = performed(before, todo)
    assert operations(after, Desired(sysctls=wanted(after))) == ()
    state = State(sysctls={o.name: (o.was, o.value) for o in todo if isinstance(o, SetSysctl)})
    down = with_originals(Desired(), state, Facts(sysctls=tuple(after.items())))
    assert performed(after, operations(after, down)) == before


def test_advertisements_are_taken_as_long_as_the_host_forwards() -> None:
    """It never forwards with accept_ra = 1."""
    todo = operations(BEFORE, Desired(sysctls=wanted(BEFORE)))
    back = operations(performed(BEFORE, todo), Desired(sysctls=tuple(BEFORE.items())))
    now = BEFORE
    for operation in (*todo, *back):
        now = performed(now, (operation,))
        forwards = now["net/ipv6/conf/all/forwarding"] == "1"
        assert not (forwards and now["net/ipv6/conf/wan0/accept_ra"] == "1"), operation
    assert now == BEFORE


def test_a_router_that_takes_no_advertisements_stays_one() -> None:
    router = BEFORE | {"net/ipv6/conf/all/forwarding": "1", "net/ipv4/ip_forward": "1"}
    assert {name for name, _ in wanted(router)} == {
        "net/ipv4/conf/wan0/rp_filter",
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/forwarding",
    }


@pytest.mark.parametrize(
    ("everywhere", "own", "expected"),
    [("0", "0", None), ("1", "0", "2"), ("0", "1", "2"), ("1", "2", "2"), ("2", "0", None)],
)
def test_a_strict_filter_is_loosened(everywhere: str, own: str, expected: str | None) -> None:
    now = BEFORE | {
        "net/ipv4/conf/all/rp_filter": everywhere,
        "net/ipv4/conf/wan0/rp_filter": own,
    }
    found = dict(wanted(now, ForwardedFlows()))
    assert found.get("net/ipv4/conf/wan0/rp_filter") == expected
    assert "net/ipv4/conf/wan0/src_valid_mark" not in found


def test_marks_alone_need_less() -> None:
    facts = Facts(sysctls=tuple(BEFORE.items()))
    marked = Needs(HOST, (replace(A, mechanism="mark"),), {}, ())
    found = dict(sysctls(facts, marked))
    assert found["net/ipv4/conf/wan0/src_valid_mark"] == "1"
    assert "net/ipv4/conf/wan0/rp_filter" not in found
    assert dict(wanted(BEFORE, None)) == {}


# --- where they can't be written ----------------------------------------------------------

ACCEPT, REFLECT = "net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect"
QUEUE = "net/ipv4/neigh/eth0.5/unres_qlen_bytes"


@pytest.mark.parametrize(
    ("now", "wanted", "kept", "told"),
    [
        ({QUEUE: "212992"}, {QUEUE: "32768"}, {}, ["not required: net.ipv4.neigh.eth0/5.unres"]),
        ({ACCEPT: "0"}, {ACCEPT: "1"}, {}, ["error: and net.ipv4.tcp_fwmark_accept=1 must be"]),
        ({ACCEPT: "1"}, {ACCEPT: "1"}, {ACCEPT: "1"}, []),
        # of flows that are marked, and of redirected ones
        ({ACCEPT: "1", REFLECT: "0"}, {ACCEPT: "1", REFLECT: "1"}, {ACCEPT: "1"}, ["error: "]),
        ({REFLECT: "0"}, {REFLECT: "1"}, {}, ["not required: net.ipv4.fwmark_reflect=1"]),
        ({REDIRECTS: "1"}, {REDIRECTS: "0"}, {}, ["not required: "]),
        (
            {"net/ipv4/ip_forward": "0", QUEUE: "212992"},
            {"net/ipv4/ip_forward": "1", QUEUE: "32768"},
            {},
            ["error: and net.ipv4.ip_forward=1 must be set; set it where", "not required: "],
        ),
    ],
)
def test_read_only(
    now: dict[str, str], wanted: dict[str, str], kept: dict[str, str], told: list[str]
) -> None:
    facts = Facts(sysctls=tuple(now.items()), sysctls_read_only=True)
    desired = Desired(sysctls=tuple(wanted.items()))
    possible, problems = without_read_only(desired, facts)
    assert dict(possible.sysctls) == kept
    lines = [f"{'' if problem.warning else 'error: '}{problem}" for problem in problems]
    for line, part in zip(lines, told, strict=True):
        assert part.replace("error: ", "") in line
        assert line.startswith("error: /proc/sys: is read-only") == part.startswith("error: ")
    assert without_read_only(desired, replace(facts, sysctls_read_only=False)) == (desired, ())


def test_what_was_ours_stays_where_nothing_can_be_written() -> None:
    facts = Facts(sysctls=((QUEUE, "32768"),), sysctls_read_only=True)
    state = State(sysctls={QUEUE: ("212992", "32768")})
    down = prepare_down(Observation(facts, state))
    assert down.operations == ()
    assert down.state.sysctls == state.sysctls
    [problem] = down.problems
    assert problem.warning
    assert "not restored: net.ipv4.neigh.eth0/5.unres_qlen_bytes=32768" in str(problem)
