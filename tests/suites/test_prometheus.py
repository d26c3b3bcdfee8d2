"""Debian's Prometheus reads our metrics, its promtool tests the alerts, and each query of the
dashboard has an answer.

client ── core ─┬─ isp-a ── wan0 ┐
                └─ isp-b ── wan1 ┴ host: ifdefault run, monitor, web; node_exporter; prometheus

Rules: a panel without a number fails, so the world has something of everything: a path that goes
down, names that are asked for, a forwarded service, a budget.
"""

from __future__ import annotations

import json
import math
import re
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ifdefault.lab import faults, services
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import test_dns_daemon
from tests.net.conftest import LabWorld
from tests.net.watched import await_states, public_run_dir
from tests.unit.test_metrics import ALL, DASHBOARD, RULES

TESTS = Path(__file__).parent / "prometheus/ifdefault.test.yml"
CONFIG = f"""\
[uplink.missing]
interface = "wan9"
[health]
recover_s = 0.3
{test_dns_daemon.DNS}
[[dns.exec]]
program = "/bin/true"
[[forward]]
listen = "tcp:80"
to = ["192.168.1.10"]
"""
PROMETHEUS = f"""\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{RULES}"]
scrape_configs:
  - job_name: ifdefault
    static_configs: [{{targets: ["127.0.0.1:8053"]}}]
  - job_name: node
    static_configs: [{{targets: ["127.0.0.1:9100"]}}]
"""
RANGE_S = 30


def promtool(*arguments: str | Path, text: str = "") -> str:
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_passes_the_metrics() -> None:
    assert promtool("check", "metrics", text=ALL.decode()) == ""


def test_each_alert_is_raised_when_it_should_be() -> None:
    promtool("check", "rules", RULES)
    promtool("test", "rules", TESTS)
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text()))
    tested = re.findall(r"alertname: (\w+)\n +eval_time: .*\n +exp_alerts:", TESTS.read_text())
    assert alerts == set(tested)


def test_each_panel_of_the_dashboard_has_its_numbers(lab_world: LabWorld) -> None:
    world = lab_world("two")
    host = world["host"]
    with public_run_dir(world):
        start(world)
        scraped = "count_over_time(ifdefault_up[1m]) > 1"
        eventually(lambda: len(ask(host, "query", query=scraped)["result"]) == 2, what="scraped")
        with faults.injected(world, "blackhole", "isp-a"):
            await_states(world, ["down"], "isp-a")
            test_dns_daemon.ask(world, at=test_dns_daemon.B)
            await_numbers(host)
            alerts = {alert["labels"]["alertname"] for alert in ask(host, "alerts")["alerts"]}
            assert alerts == {"IfdefaultUplinkDown", "IfdefaultUplinkMissing"}
    rules = [rule for group in ask(host, "rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    # whichever way they came
    assert names(host, "node") == names(host, "ifdefault")


def start(world: World) -> None:
    """All that runs on the host."""
    host = world["host"]
    services.nginx(world["content"])
    folder = services.home_of(host, "textfiles")
    # monitor and web are users that may not look into the world's own directory
    world.config, state = world.run_dir / "ifdefault.toml", world.run_dir / "state"
    file = state / "history/ifdefault.prom"
    (folder / file.name).symlink_to(file)
    text = world.topology.config.replace("[uplink.isp-a]", '[uplink.isp-a]\nbudget = "1 TB"')
    world.config.write_text(f'{text}{CONFIG}[history]\ntextfile = "{file}"\n')
    world.daemon()
    await_states(world, ["up"])
    for name in ("monitor", "web"):
        command = [*world.command, "--state-dir", str(state), name]
        services.start(host, name, command)
    home = services.home_of(host, "prometheus")
    config = home / "prometheus.yml"
    config.write_text(PROMETHEUS)
    exporter = ["--collector.disable-defaults", "--collector.textfile"]
    for name, port, options in (
        (
            "prometheus-node-exporter",
            9100,
            [*exporter, f"--collector.textfile.directory={folder}"],
        ),
        ("prometheus", 9090, [f"--config.file={config}", f"--storage.tsdb.path={home}/data"]),
    ):
        child = services.start(host, name, [name, *options])
        services.answering(host, name, child, socket.SOCK_STREAM, port)


def names(host: Node, job: str) -> set[str]:
    """Of our metrics, as a job has them."""
    series = ask(host, "series", **{"match[]": f'{{job="{job}", __name__=~"ifdefault_.*"}}'})
    return {labels["__name__"] for labels in series}


def await_numbers(host: Node) -> None:
    silent: list[str] = []

    def are_there() -> bool:
        silent[:] = unanswered(host)
        return not silent

    try:
        eventually(are_there, 60.0, what="numbers", poll_s=1.0)
    except TimeoutError:
        assert silent == []


def ask(host: Node, what: str, **arguments: str | float) -> Any:
    """Prometheus' answer to a request of its API, once it answers."""
    url = f"http://127.0.0.1:9090/api/v1/{what}?{urlencode(arguments)}"
    command = ["curl", "--silent", "--max-time", "10", url]
    answer = json.loads(eventually(lambda: host.run(command).stdout, 60.0, what="Prometheus"))
    assert answer["status"] == "success", answer
    return answer["data"]


def unanswered(host: Node) -> list[str]:
    """The dashboard's queries without a number, each with its panel."""
    dashboard = json.loads(DASHBOARD.read_text())
    variables = {"__rate_interval": "4s", "__range": f"{RANGE_S}s"}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = values(host, replaced(variable["definition"], variables))
            variables[variable["name"]] = "|".join(found) if variable["multi"] else found[0]
    return [
        f"{panel['title']}: {target['expr']}"
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        if not any(map(math.isfinite, numbers(host, target, variables)))
    ]


def replaced(text: str, variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        text = text.replace(f"${name}", f"({value})" if "|" in value else value)
    assert "$" not in text, text
    return text


def values(host: Node, definition: str) -> list[str]:
    """The values of a variable of the dashboard: label_values(SELECTOR, LABEL)."""
    match = re.fullmatch(r"label_values\((.*), (\w+)\)", definition)
    assert match
    series = ask(host, "series", **{"match[]": match[1]})
    return sorted({labels[match[2]] for labels in series}) or ["none"]


def numbers(host: Node, target: Mapping[str, Any], variables: Mapping[str, str]) -> list[float]:
    """All that a query of a panel has as its answer."""
    query, now = replaced(target["expr"], variables), time.time()
    if target.get("instant"):
        rows = ask(host, "query", query=query)["result"]
        return [float(row["value"][1]) for row in rows]
    data = ask(host, "query_range", query=query, start=now - RANGE_S, end=now, step=1)
    return [float(value) for row in data["result"] for _, value in row["values"]]
