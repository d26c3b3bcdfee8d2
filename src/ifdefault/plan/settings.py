"""The sysctls that our rules, marks and forwarding need.

Rules: the desired value of a sysctl must not change once it is set, or it would be reset. They are
in the order in which they must be set. Values of the administrator that are stricter are kept.
Where sysctls can't be written, as in containers, only those that are required must have their
value already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ifdefault.model.config import FAMILIES
from ifdefault.model.errors import Problem
from ifdefault.model.host import State
from ifdefault.model.kernel import FORWARDING, PROTOCOL, Desired, Facts
from ifdefault.plan.connmark import ForwardedFlows
from ifdefault.plan.ruleset import Needs

# The kernel sets it to the inverse of ip_forward when that changes (inet_forward_change)
REDIRECTS = "net/ipv4/conf/all/accept_redirects"
_ACCEPT = "net/ipv4/tcp_fwmark_accept"
_MARKS = (_ACCEPT, "net/ipv4/fwmark_reflect", "net/ipv6/fwmark_reflect")
# Limit in bytes of the packets queued while a gateway's MAC is resolved. The kernel sends all echo
# replies from one socket, whose buffer (132 kB) a silent gateway's queue (213 kB by default) fills.
_UNRESOLVED = 32768


def sysctls(facts: Facts, needs: Needs) -> Iterator[tuple[str, str]]:
    """The sysctls to set, as (name, value)."""
    now = dict(facts.sysctls)
    interfaces = sorted({u.interface for u in needs.uplinks})
    for interface in interfaces:
        for family in FAMILIES:
            name = f"net/ipv{family}/neigh/{interface}/unres_qlen_bytes"
            if (
                int(now.get(name, "0")) >= _UNRESOLVED
            ):  # a lower value is the administrator's choice
                yield name, str(_UNRESOLVED)
    if any(u.mechanism == "mark" for u in needs.uplinks):
        for name in _MARKS:
            yield name, "1"
    elif not any(rule.mask and rule.protocol != PROTOCOL for rule in facts.rules):
        # routes ICMP errors about redirected flows by their mark. Not where others route by marks,
        # since theirs would be reflected, too; there the path MTU remains unknown
        for family in needs.redirected_families():
            yield f"net/ipv{family}/fwmark_reflect", "1"
    for interface in interfaces:
        yield from _reverse_path_filter(now, interface, needs)
    if needs.forwarded:
        yield from _forwarding(now, interfaces, needs.forwarded)


def _reverse_path_filter(
    now: dict[str, str], interface: str, needs: Needs
) -> Iterator[tuple[str, str]]:
    """A strict filter drops marked packets, and packets to be forwarded from uplinks other than the
    primary. The maximum of `all` and the interface applies (ip-sysctl.rst, rp_filter)."""
    name = f"net/ipv4/conf/{interface}/rp_filter"
    own, everywhere = now.get(name, "0"), now.get("net/ipv4/conf/all/rp_filter", "0")
    strict = max(own, everywhere) == "1"
    if needs.forwarded:
        if strict or own == "2":
            yield name, "2"
    elif needs.marks_arrival() and strict:
        yield f"net/ipv4/conf/{interface}/src_valid_mark", "1"


def _forwarding(
    now: dict[str, str], interfaces: list[str], forwarded: ForwardedFlows
) -> Iterator[tuple[str, str]]:
    if 6 in forwarded.needed:
        for interface in interfaces:
            name = f"net/ipv6/conf/{interface}/accept_ra"
            accepts = now.get(name, "0")
            # a router ignores router advertisements unless this is 2 (ip-sysctl.rst, accept_ra)
            if accepts == "2" or (accepts == "1" and now.get(FORWARDING[6]) == "0"):
                yield name, "2"
    if 4 in forwarded.needed and "0" in (now.get(REDIRECTS), now.get(FORWARDING[4])):
        yield REDIRECTS, "0"  # the kernel does this itself; listed so that the original is saved
    for family in forwarded.needed:
        yield FORWARDING[family], "1"


# --- where they can't be written ----------------------------------------------------------


def without_read_only(desired: Desired, facts: Facts) -> tuple[Desired, tuple[Problem, ...]]:
    """The desired state without the sysctls that would have to be changed and can't be; an error
    for those that are required, and a warning for the others."""
    if not facts.sysctls_read_only:
        return desired, ()
    now, wanted = dict(facts.sysctls), dict(desired.sysctls)
    fixed = {name: value for name, value in wanted.items() if now.get(name, value) != value}
    required = [name for name in fixed if _is_required(name, wanted)]
    problems = []
    if required:
        what = f"is read-only, and {_list(required, fixed)} must be set"
        remedy = "set it where the container is configured, as by docker run --sysctl NAME=VALUE"
        problems.append(Problem("/proc/sys", what, remedy))
    if optional := [name for name in fixed if name not in required]:
        not_set = f"is read-only; not set, and not required: {_list(optional, fixed)}"
        problems.append(Problem("/proc/sys", not_set, warning=True))
    kept = tuple((name, value) for name, value in desired.sysctls if name not in fixed)
    return replace(desired, sysctls=kept), tuple(problems)


def kept_read_only(state: State, facts: Facts) -> tuple[Problem, ...]:
    """A warning for the sysctls that `down` can't restore."""
    now = dict(facts.sysctls)
    kept = {n: now[n] for n, (_, *ours) in state.sysctls.items() if now.get(n) in ours}
    if not kept or not facts.sysctls_read_only:
        return ()
    what = f"is read-only; not restored: {_list(list(kept), kept)}"
    return (Problem("/proc/sys", what, warning=True),)


def _is_required(name: str, wanted: Mapping[str, str]) -> bool:
    """Whether connections would break without it. An unresolved gateway's queue and the path MTU of
    redirected flows (fwmark_reflect without marks on TCP) are improvements."""
    if name.endswith("/fwmark_reflect"):
        return _ACCEPT in wanted
    return name != REDIRECTS and not name.endswith("/unres_qlen_bytes")


def _list(names: list[str], values: Mapping[str, str]) -> str:
    """Sysctls in the syntax of sysctl(8): an interface's name may contain dots."""
    swapped = str.maketrans("./", "/.")
    return ", ".join(f"{name.translate(swapped)}={values[name]}" for name in names)
