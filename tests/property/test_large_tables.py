"""What is worked out quickly for large tables is what working it out for each route would be."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ifdefault.kernel.decoded import Decoded
from ifdefault.kernel.rtnetlink import Names
from ifdefault.model.address import BITS
from ifdefault.model.flow import Flow
from ifdefault.model.kernel import TABLE_MAIN, Facts, Hop, Link, Route, Rule
from ifdefault.model.many import Many
from ifdefault.plan import prefixes, tables
from ifdefault.plan.lookup import Fib, matches
from ifdefault.plan.rule_index import rule_index

ROUTER, OTHER, LAN = Hop("wan0", "203.0.113.1"), Hop("wan0", "203.0.113.9"), Hop("lan0")
DEFAULT = Route(4, TABLE_MAIN, "default", hops=(ROUTER,))
LINKS = (Link(2, "wan0"), Link(3, "lan0"))
MAIN = (Rule(4, 32766, table=TABLE_MAIN),)

prefix = st.builds(
    lambda length, bits: f"{prefixes.text(4, bits >> (32 - length) << (32 - length))}/{length}",
    st.integers(5, 32),
    # few bits that differ, so that prefixes are often inside one another
    st.sampled_from([10 << 24 | n << 20 | m << 6 for n in range(4) for m in range(4)]),
)
specific = st.builds(
    Route,
    st.just(4),
    st.just(TABLE_MAIN),
    prefix,
    st.integers(0, 1),
    hops=st.sampled_from([(ROUTER,), (OTHER,), (LAN,)]),
    metrics=st.sampled_from([(), ((2, 1400),)]),
)
routes = st.lists(specific, max_size=12, unique_by=lambda r: (r.dst, r.metric))
rules = st.lists(
    st.builds(
        Rule,
        st.sampled_from([4, 6]),
        st.integers(1, 9),
        table=st.integers(1, 3),
        src=st.sampled_from(["", "10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0"]),
        dst=st.sampled_from(["", "10.0.0.0/8", "10.1.2.0/24"]),
        iif=st.sampled_from(["", "wan0", "lo"]),
        oif=st.sampled_from(["", "wan0"]),
        mark=st.integers(0, 3),
        mask=st.sampled_from([0, 1, 3]),
        invert=st.booleans(),
    ),
    max_size=12,
)
flows = st.builds(
    Flow,
    st.just(4),
    st.sampled_from(["10.0.0.1", "10.1.2.3", "192.0.2.1"]),
    st.sampled_from(["", "10.0.0.9", "10.1.0.9", "198.51.100.1"]),
    iif=st.sampled_from(["", "wan0", "lan0"]),
    oif=st.sampled_from(["", "wan0"]),
    mark=st.integers(0, 3),
)


def fib(*of: Route) -> Fib:
    return Fib.of(Facts(links=LINKS, routes=of, rules=MAIN))


@given(rules, flows)
def test_no_rule_that_matches_is_left_out(rules: list[Rule], flow: Flow) -> None:
    found = [rule for rule in rule_index(Many(rules)).candidates(flow) if matches(rule, flow)]
    assert found == [rule for rule in rules if rule.family == 4 and matches(rule, flow)]


@given(routes, st.data())
def test_between_borders_all_packets_go_one_way(routes: list[Route], data: Any) -> None:
    borders = tables.borders(Many(routes), wide=7)
    ends = [*borders, 1 << BITS[4]]
    number = data.draw(st.sampled_from([10 << 24, *borders, *(b - 1 for b in borders if b)]))
    first = max((border for border in ends if border <= number), default=None)
    way = fib(*routes).lookup(Flow(4, prefixes.text(4, number)))
    if first is None:
        assert way.route is None
        return
    there = fib(*routes).lookup(Flow(4, prefixes.text(4, first)))
    assert (way.kind, way.hop, way.source) == (there.kind, there.hop, there.source)
    assert borders == sorted(set(borders))
    for one, after in itertools.pairwise(borders):  # no more borders than needed
        assert fib(*routes).lookup(Flow(4, prefixes.text(4, one))) != fib(*routes).lookup(
            Flow(4, prefixes.text(4, after))
        )


@given(routes)
def test_an_uplinks_table_without_routes_like_its_default_is_the_same(
    routes: list[Route],
) -> None:
    facts = Facts(links=LINKS, routes=(DEFAULT, *routes))
    over = [r for r in routes if r.hops[0].dev == "wan0"]
    few = tables.not_like(facts, "wan0", DEFAULT)
    assert set(few) <= set(over)
    whole, pruned = fib(DEFAULT, *over), fib(DEFAULT, *few)
    for route in routes:
        first, length = prefixes.network(route.dst)
        for number in (first, first + (1 << 32 - length) - 1):
            flow = Flow(4, prefixes.text(4, number))
            one, other = whole.lookup(flow), pruned.lookup(flow)
            assert one.hop == other.hop
            assert (one.route and one.route.metrics) == (other.route and other.route.metrics)


dumps = st.tuples(
    st.lists(st.binary(min_size=2, max_size=2), max_size=6),
    st.dictionaries(st.integers(0, 3), st.sampled_from(["wan0", "wan1", "lan0"])),
)


def decoded(message: bytes, names: Names) -> tuple[str, ...] | None:
    """Not supported, or the names of a message's interfaces, one of which must be there."""
    one, other = message[0] % 4, message[1] % 4
    if message[0] % 3 == 0 or one not in names:
        return None
    return names[one], names.get(other, "gone")


@given(st.lists(dumps, max_size=6))
def test_dumps_are_decoded_as_if_there_had_been_no_other(
    dumps: list[tuple[list[bytes], dict[int, str]]],
) -> None:
    known = Decoded(decoded)
    before: Many[tuple[str, ...]] = Many()
    for dump, names in dumps:
        found = known.decode(dump, names)
        each = (decoded(message, names) for message in dump)
        assert found == tuple(value for value in each if value is not None)
        assert found is before or found != before or not found
        before = found


def test_what_is_on_other_interfaces_is_not_decoded_again() -> None:
    done = []

    def decode(message: bytes, names: Names) -> str | None:
        done.append(message)
        return names.get(message[0])

    known, messages = Decoded(decode), [b"\2a", b"\3b", b"\4c"]
    assert known.decode(messages, {2: "wan0", 3: "wan1"}) == ("wan0", "wan1")
    done.clear()
    assert known.decode(messages, {2: "wan0", 3: "isp", 4: "veth0"}) == ("wan0", "isp", "veth0")
    assert done == messages[1:]


def test_what_is_kept_follows_the_routes() -> None:
    many = tuple(Route(4, TABLE_MAIN, f"10.0.{n}.0/24", hops=(ROUTER,)) for n in range(200))
    for some in (many, many[1:], (*many, Route(4, TABLE_MAIN, "10.9.0.0/16", hops=(OTHER,)))):
        for hop in (ROUTER, OTHER):
            facts = Facts(links=LINKS, routes=tuple(replace(r, hops=(hop,)) for r in some))
            assert len(tables.specific(facts, 4, "wan0")) == len(some)
            expected = len(some) if hop == OTHER else 0
            assert len(tables.not_like(facts, "wan0", DEFAULT)) == expected
