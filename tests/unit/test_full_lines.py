"""A line fills up: what the daemon does then, and what it says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ifdefault.daemon.controller import effects as f
from ifdefault.daemon.controller import events as e
from ifdefault.model.config import OutgoingConfig
from ifdefault.model.dns import DnsConfig, NameConfig, ServerConfig
from ifdefault.model.health import LinkCounter
from ifdefault.model.kernel import PutHook
from ifdefault.model.report_text import filling
from tests.unit.controlled import CONFIG, UPLINKS, Host

MBIT = 10**6
BALANCED = replace(
    CONFIG,
    uplinks=(
        replace(UPLINKS[0], capacity=(100 * MBIT, 100 * MBIT)),
        replace(UPLINKS[1], rank=0, weight=2),
    ),
    outgoing=OutgoingConfig(mode="balance"),
    dns=DnsConfig(
        names=(NameConfig("www.example", "weighted"), NameConfig("old.example", "failover")),
        server=ServerConfig(("example",)),
    ),
)


def carry(host: Host, seconds: int, mbit_s: float, bits: list[float]) -> list[f.Effect]:
    """isp-a's interface sends at this rate; what the daemon did except probing."""
    host.forget()
    for _ in range(seconds):
        host.run(1)
        bits[0] += mbit_s * MBIT
        counter = LinkCounter("isp-a", 10, 0, int(bits[0] / 8))
        host.receive(e.TrafficCounted(host.now, host.now, (counter,)))
    quiet = (f.SendProbe, f.Save)
    return [done for turn in host.turns for done in turn if not isinstance(done, quiet)]


def test_new_connections_and_visitors_move_away_and_come_back() -> None:
    host, bits = Host(config=BALANCED).start(), [0.0]
    before = host.facts.hook
    done = carry(host, 25, 97, bits)
    assert {type(effect) for effect in done} == {f.Look, f.Publish, f.Converge, f.Log}
    counts = Counter(type(effect) for effect in done)
    assert counts[f.Look] == counts[f.Publish] == counts[f.Converge] <= 3
    converged = [effect for effect in done if isinstance(effect, f.Converge)]
    assert all(
        isinstance(operation, PutHook)
        for each in converged
        for operation in each.prepared.operations
    )
    (log,) = (effect for effect in done if isinstance(effect, f.Log))
    assert (log.kind, log.uplink, log.severity) == ("uplink", "isp-a", "info")
    said = "isp-a: its line is full: 96 % of 100 Mbit/s out, an eighth of its weight"
    assert log.text == said
    assert all(name.since_s < host.now - 25 for name in host.controller.names.status())
    weights, order = published(host)
    assert weights == {"isp-a": 1, "isp-b": 16}
    assert order == ["isp-b"], "the primary uplink by its configured weight"
    assert host.facts.hook is not None
    marks = Counter(dict(host.facts.hook.marks)[4]).values()
    assert sorted(marks) == [15, 236]  # of 251
    (load,) = host.controller.status(host.now).lines
    assert filling(load) == "97 % of 100 Mbit/s out, an eighth of its weight"

    done = carry(host, 90, 1, bits)
    (log,) = (effect for effect in done if isinstance(effect, f.Log))
    assert log.text == "isp-a: its line has room again: 1 % of 100 Mbit/s out"
    assert host.facts.hook == before
    assert published(host)[0] == {"isp-a": 1, "isp-b": 2}


def published(host: Host) -> tuple[dict[str, int], list[str]]:
    """The weights of one name, and the uplinks of the other."""
    weighted, failover = host.controller.names.published
    weights = {each.uplink: each.weight for each in weighted.addresses}
    return weights, sorted({each.uplink for each in failover.addresses})


def test_the_only_uplink_is_full() -> None:
    """There is nobody to give anything to."""
    only = replace(BALANCED, uplinks=BALANCED.uplinks[:1])
    host, bits = Host(config=only).start(), [0.0]
    done = carry(host, 25, 97, bits)
    assert {type(effect) for effect in done} <= {f.Log, f.Look}


def test_a_reload_without_capacities_ends_it() -> None:
    host, bits = Host(config=BALANCED).start(), [0.0]
    carry(host, 25, 97, bits)
    plain = tuple(replace(uplink, capacity=None) for uplink in BALANCED.uplinks)
    host.receive(e.ReloadRequested(1, replace(BALANCED, uplinks=plain)))
    host.run(1)
    assert published(host)[0] == {"isp-a": 1, "isp-b": 2}
    assert host.controller.status(host.now).lines == ()


def test_an_event_that_only_tells_the_time_ends_nothing() -> None:
    """The engine sends one before a reload."""
    host, bits = Host(config=BALANCED).start(), [0.0]
    carry(host, 25, 97, bits)
    before = published(host)[0]
    host.receive(e.TrafficCounted(host.now, host.now))
    host.receive(e.ReloadRequested(1, BALANCED))
    host.run(1)
    assert published(host)[0] == before == {"isp-a": 1, "isp-b": 16}
