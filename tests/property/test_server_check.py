"""For any outcomes: two in a row decide about a server, and local errors never do."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ifdefault.health import server_check
from ifdefault.health.server_check import ServerAddress, ServerChecker
from ifdefault.model.health import ServerState, Verdict

SERVERS: list[ServerAddress] = [("10.0.0.1", 80), ("10.0.0.1", 443), ("fd00::1", 80)]
verdicts = st.sampled_from(["answered", "lost", "wrong", "local", "late", "mute"])
steps = st.lists(st.tuples(verdicts, st.floats(0, 3)), max_size=80)


@given(steps)
def test_two_in_a_row_decide(fates: list[tuple[str, float]]) -> None:
    """A simple model of the checker, to compare with."""
    judge, now = ServerChecker(), 0.0
    judge.set_servers(now, SERVERS)
    evidence: dict[ServerAddress, list[bool]] = {server: [] for server in SERVERS}
    states: dict[ServerAddress, ServerState] = dict.fromkeys(SERVERS, "unproven")
    for fate, wait_s in fates:
        now = max(now + wait_s, judge.wake_s)
        for seq, server in judge.asks(now):
            if fate == "mute":
                continue
            verdict: Verdict = "lost" if fate == "late" else fate  # type: ignore[assignment]
            changed = judge.observe(now, seq, verdict, "")
            if fate == "late":
                assert judge.observe(now, seq, "answered", "late") is None
            if verdict != "local":
                evidence[server].append(verdict == "answered")
            was, states[server] = states[server], _expected(states[server], evidence[server])
            assert (changed is not None) == (was != states[server])
            if changed:
                assert (changed.was, changed.state) == (was, states[server])
                evidence[server].clear()
    assert judge.down == tuple(sorted(s for s in SERVERS if states[s] == "down"))
    assert {s: h.state for s, h in judge.health().items()} == states


def _expected(state: ServerState, evidence: list[bool]) -> ServerState:
    """`evidence` since the last change."""
    if state == "unproven" and evidence[-1:] == [True]:
        return "up"
    if state == "down":
        return "up" if evidence[-2:] == [True, True] else "down"
    return "down" if evidence[-2:] == [False, False] else state


@given(st.integers(1, 300), st.lists(verdicts, min_size=1, max_size=20), st.floats(1, 30))
def test_the_pace_is_kept_and_nobody_forgotten(
    count: int, fates: list[str], seconds: float
) -> None:
    judge, now, asked = ServerChecker(), 0.0, []
    servers = [("10.0.0.1", port) for port in range(1, count + 1)]
    judge.set_servers(now, servers)
    while judge.wake_s <= seconds + judge.interval_s:
        now = max(now, judge.wake_s)
        for seq, server in judge.asks(now):
            asked.append((now, server))
            fate = fates[len(asked) % len(fates)]
            if fate != "mute":
                judge.observe(now, seq, "lost" if fate == "late" else fate, "")  # type: ignore[arg-type]
        now += 0.001
    assert all(b - a >= server_check.PACE_S - 1e-9 for (a, _), (b, _) in pairwise(asked))
    assert {server for _, server in asked} == set(servers)


@given(st.lists(st.lists(st.sampled_from(SERVERS), unique=True), max_size=10))
def test_only_the_servers_that_are_set_are_checked(turns: list[list[ServerAddress]]) -> None:
    judge, now = ServerChecker(), 0.0
    for servers in turns:
        judge.set_servers(now, servers)
        asked: list[ServerAddress] = []
        while judge.wake_s <= now + 1:
            at_s = max(now, judge.wake_s)
            for seq, server in judge.asks(at_s):
                asked.append(server)
                judge.observe(at_s, seq, "wrong", "")
        assert set(asked) <= set(servers)
        assert set(judge.down) <= set(servers)
        assert set(judge.health()) == set(servers)
        now += 10
