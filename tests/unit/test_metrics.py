"""The metrics in both formats; docs/metrics.md, the alert rules and the dashboard against them.

Rules: what Prometheus itself makes of them is seen in tests/suites/test_prometheus.py.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from ifdefault import __version__
from ifdefault.model.health import Decision, Health, PathState
from ifdefault.model.report import (
    CheckedServer,
    CounterReport,
    DaemonStatus,
    DnsStatus,
    Named,
    PathCounters,
    PublisherStatus,
    UplinkCounters,
)
from ifdefault.model.usage import Usage
from ifdefault.monitor import metrics
from ifdefault.monitor.history import budget as history
from ifdefault.monitor.metrics import OPENMETRICS, TEXT, Budget, content_type, render
from ifdefault.monitor.status_file import MonitorStatus, Trouble

TOP = Path(__file__).parents[2]
DOCUMENT = TOP / "docs/metrics.md"
RULES = TOP / "packaging/prometheus/ifdefault.rules.yml"
DASHBOARD = TOP / "packaging/grafana/ifdefault.json"
HOSTILE = 'a"b\\c\nd{e="f"}'

STATUS = DaemonStatus(
    pid=1,
    up_s=100.0,
    now_s=1100.0,
    config="/etc/ifdefault/ifdefault.toml",
    health=(
        Health("isp-a", 4, "down", 1090.0, "8 rounds lost", 1.0, 0.0, "answers"),
        Health("isp-b", 4, "up", 1000.0, "1.1.1.1 answers", 0.0, 0.2, "unknown"),
    ),
    decision=Decision(((4, ("isp-b", "isp-a")),), ((4, ("isp-b",)),)),
    forced={"isp-b": "up"},
    held="an apply is unconfirmed",
    undone_in_s=30.0,
    conflicts=("another program keeps undoing: rule 5030",),
    dns=DnsStatus(
        (Named("www.example.net", "rotate", 30, (("isp-b", "198.51.100.10"),), 1090.0),),
        (PublisherStatus("update", "198.18.1.10", "example.net", "www", "failing", 1090.0),),
    ),
    servers=(CheckedServer("tcp:443", "192.168.1.10", 8443, "up", 1000.0, ""),),
)
COUNTERS = CounterReport(
    1_700_000_000.0,
    (
        PathCounters(
            *("isp-a", 4, 20, 8, 0.034),
            rtt=(0, 12, 8, 0, 0, 0, 0, 0, 0, 0, 0),
            entered=(("up", 1), ("down", 2)),
            decide_s=0.8,
            decide=(0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0),
        ),
    ),
    (UplinkCounters("isp-a", 1 << 53, 2000, 3),),
    (("isp-a", "NOERROR", 7),),
    (("update", "198.18.1.10", 5, 2),),
    repairs=4,
    refused=1,
)
BUDGETS = (Budget("isp-a", 500 * 10**9, 123), Budget("isp-b", 0, 7))
MONITOR = MonitorStatus(2, 0.0, __version__, (Trouble("notify ops", "connection refused", 0.0),))
ALL = render(STATUS, COUNTERS, BUDGETS, TEXT, MONITOR)


def parse_openmetrics(content: str) -> list[Metric]:
    return list(openmetrics.text_string_to_metric_families(content))  # type: ignore[no-untyped-call]


def families(content: bytes = ALL) -> list[Metric]:
    return list(parse_text(content.decode()))


def values(content: bytes, name: str) -> dict[tuple[str, ...], float]:
    """A metric's samples, by the values of their labels, sorted by the labels' names."""
    samples = (s for family in families(content) for s in family.samples)
    found = [s for s in samples if s.name == f"ifdefault_{name}"]
    assert found, name
    return {tuple(s.labels[key] for key in sorted(s.labels)): s.value for s in found}


def test_what_has_a_state_has_a_series_for_each() -> None:
    states = values(ALL, "path_state")
    assert len(states) == 2 * len(get_args(PathState))
    current = {labels for labels, value in states.items() if value}
    assert current == {("IPv4", "down", "isp-a"), ("IPv4", "up", "isp-b")}
    assert values(ALL, "uplink_forced")["auto", "isp-a"] == 1
    assert values(ALL, "uplink_forced")["up", "isp-b"] == 1


def test_what_was_decided() -> None:
    assert values(ALL, "path_primary") == {("IPv4", "isp-a"): 0, ("IPv4", "isp-b"): 1}
    assert values(ALL, "path_usable") == {("IPv4", "isp-a"): 0, ("IPv4", "isp-b"): 1}
    assert values(ALL, "path_gateway_answers") == {("IPv4", "isp-a"): 1}
    # the engine started 100 s ago, at 1,700,000,000: 1000 on its clock
    since = values(ALL, "path_last_transition_timestamp_seconds")
    assert since["IPv4", "isp-a"] == 1_700_000_090
    assert (values(ALL, "held"), values(ALL, "unconfirmed")) == ({(): 0}, {(): 1})
    assert values(ALL, "problems")["conflict",] == 1
    assert sum(values(ALL, "problems").values()) == 1


def test_counters() -> None:
    assert values(ALL, "path_probes_total")["IPv4", "lost", "isp-a"] == 8
    entered = values(ALL, "path_transitions_total")
    assert (entered["IPv4", "down", "isp-a"], entered["IPv4", "degraded", "isp-a"]) == (2, 0)
    assert values(ALL, "uplink_receive_bytes_total") == {("isp-a",): 1 << 53}
    assert values(ALL, "dns_updates_total")["198.18.1.10", "update", "failed"] == 2
    assert values(ALL, "uplink_budget_bytes") == {("isp-a",): 500e9}
    assert values(ALL, "uplink_budget_used_bytes") == {("isp-a",): 123, ("isp-b",): 7}


def test_a_budget_is_as_the_engine_counts_it() -> None:
    now = datetime.now().astimezone()
    by_history = {name: history.Budget(now, now, 5, 9) for name in ("isp-a", "isp-b")}
    counted = Usage("isp-a", 7, 9, "2026-11-01", "2026-12-01")
    status = DaemonStatus(1, 1.0, 1.0, "", usage=(counted,))
    found = {each.uplink: each.used_bytes for each in metrics.budgets_now(status, by_history)}
    assert found == {"isp-a": 7, "isp-b": 5}
    assert metrics.budgets_now(None, by_history)[0].used_bytes == 5


def test_histograms_are_cumulative() -> None:
    rtt = values(ALL, "path_rtt_seconds_bucket")
    edges = {labels[1]: value for labels, value in rtt.items()}
    assert [edges[edge] for edge in ("0.001", "0.002", "0.005", "1.0", "+Inf")] == [
        0,
        12,
        20,
        20,
        20,
    ]
    assert values(ALL, "path_rtt_seconds_count") == {("IPv4", "isp-a"): 20}
    assert values(ALL, "path_rtt_seconds_sum") == {("IPv4", "isp-a"): 0.034}
    assert values(ALL, "path_failure_detection_seconds_count") == {("IPv4", "isp-a"): 2}


def test_both_formats_say_the_same() -> None:
    content = render(STATUS, COUNTERS, BUDGETS, OPENMETRICS, MONITOR).decode()
    assert content.endswith("# EOF\n")
    told = {s for family in parse_openmetrics(content) for s in map(str, family.samples)}
    assert told == {s for family in families() for s in map(str, family.samples)}


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        # Prometheus 2.42
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", OPENMETRICS),
        ("application/openmetrics-text;version=hostile", OPENMETRICS),
    ],
)
def test_the_format_is_the_scrapers(accept: str, expected: str) -> None:
    assert content_type(accept) == expected


def test_a_daemon_that_does_not_answer_is_not_up() -> None:
    content = render(None, None, BUDGETS[:1])
    assert values(content, "up") == {(): 0}
    names = {s.name for family in families(content) for s in family.samples}
    budget = {"ifdefault_uplink_budget_bytes", "ifdefault_uplink_budget_used_bytes"}
    assert names == {"ifdefault_up", "ifdefault_build_info", "ifdefault_monitor_up", *budget}
    assert values(content, "build_info") == {(__version__,): 1}


def test_what_the_monitor_says() -> None:
    assert values(ALL, "monitor_up") == {(): 1}
    assert values(ALL, "monitor_trouble") == {("notify ops",): 1}
    assert values(render(STATUS, COUNTERS), "monitor_up") == {(): 0}


def test_hostile_text_stays_in_its_label() -> None:
    server = CheckedServer(HOSTILE, "192.0.2.1", 80, "down", 0.0, "")
    for kind, parse in ((TEXT, parse_text), (OPENMETRICS, parse_openmetrics)):
        content = render(replace(STATUS, servers=(server,)), COUNTERS, (), kind)
        found = [s for f in parse(content.decode()) for s in f.samples if s.value == 1]
        (sample,) = (s for s in found if s.name == "ifdefault_server_state")
        assert sample.labels["forward"] == HOSTILE


# --- what is said of them ---------------------------------------------------------------------


def rows() -> list[str]:
    """A row of docs/metrics.md for each metric."""
    found = []
    for family in families():
        assert family.samples, f"STATUS and COUNTERS have nothing of {family.name}"
        suffix = "_total" if family.type == "counter" else ""
        labels = dict.fromkeys(key for s in family.samples for key in s.labels if key != "le")
        text = ", ".join(f"`{label}`" for label in sorted(labels))
        found.append(
            f"| `{family.name}{suffix}` | {family.type} | {text} | {family.documentation} |"
        )
    return found


def test_each_is_documented_as_its_help_says() -> None:
    text = DOCUMENT.read_text()
    assert re.findall(r"^\| `ifdefault_.*$", text, re.MULTILINE) == rows()


def expressions() -> list[str]:
    """All queries of the rules and of the dashboard."""
    dashboard = DASHBOARD.read_text()
    return [
        *re.findall(
            r"^ +expr: (?:\|\n)?((?:.+\n)+?)(?= +(?:for|labels):)", RULES.read_text(), re.MULTILINE
        ),
        *(
            target["expr"]
            for panel in json.loads(dashboard)["panels"]
            for target in panel.get("targets", ())
        ),
    ]


def test_rules_and_dashboard_ask_for_what_there_is() -> None:
    samples = [s for family in families() for s in family.samples]
    labels = {s.name: s.labels.keys() for s in samples}
    asked = expressions()
    assert len(asked) > 25
    for expression in asked:
        for name, selector in re.findall(r"\b(ifdefault_\w+)\b(?:\{([^}]*)\})?", expression):
            keys = set(re.findall(r"(\w+)(?:=~|!=|!~|=)", selector)) - {"instance", "job"}
            assert name in labels, expression
            assert keys <= labels[name], expression


def test_all_that_may_be_wrong_is_shown_or_alerted() -> None:
    """Every metric is in a query, but for those that explain others."""
    asked = "\n".join(expressions())
    silent = {f.name for f in families() if f.name not in asked}
    assert silent <= {"ifdefault_build", "ifdefault_start_time_seconds"}
