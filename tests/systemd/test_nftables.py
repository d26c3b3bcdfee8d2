"""nftables.service, or somebody, flushes all tables: ours come back.

client ── core ─┬─ isp-a ── wan0 ┬─ host, with a systemd of its own
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import pytest

from ifdefault.lab.waiting import eventually
from tests.net import answers
from tests.net.watched import await_states
from tests.systemd.booted import Booted
from tests.systemd.conftest import Boot

FLUSHES = [
    "systemctl restart nftables",
    "systemctl reload nftables",
    "systemctl stop nftables; systemctl start nftables",
]
BY_HAND = ["nft flush ruleset", "nft -f /etc/nftables.conf", "systemctl stop nftables"]
DAEMON, ONCE, AGAIN = "ifdefault.service", "ifdefault-once.service", "ifdefault-nftables.service"


def ruleset(host: Booted) -> str:
    return host.world["host"].run(["nft", "-s", "list", "ruleset"]).stdout


@pytest.mark.parametrize("command", [*FLUSHES, *BY_HAND])
def test_with_the_daemon(boot: Boot, command: str) -> None:
    host = boot(enable=["nftables.service", DAEMON])
    await_states(host.world, ["up"])
    before = ruleset(host)
    assert "table inet ifdefault" in before
    host.shell(command)
    eventually(lambda: "table inet ifdefault" in ruleset(host), 10.0, what="restored")
    answers.assert_answered(host.world)
    assert any("repaired: nft" in line for line in host.journal(DAEMON))


@pytest.mark.parametrize("command", FLUSHES)
def test_without_the_daemon(boot: Boot, command: str) -> None:
    host = boot(enable=["nftables.service", ONCE, AGAIN])
    host.await_state(ONCE)
    assert "table inet ifdefault" in ruleset(host)
    host.shell(command)
    eventually(lambda: "table inet ifdefault" in ruleset(host), 10.0, what="restored")
    answers.assert_answered(host.world)


@pytest.mark.parametrize("command", BY_HAND[:2])
def test_without_the_daemon_check_says_so(boot: Boot, command: str) -> None:
    host = boot(enable=["nftables.service", ONCE, AGAIN])
    host.await_state(ONCE)

    def said() -> bool:  # once what `apply --settle` left behind has had its first look
        host.shell(command)
        return "due: nft replace table inet ifdefault; " in host.ifdefault("check").stderr

    eventually(said, what="check says so")
    host.systemctl("reload", ONCE)
    assert host.ifdefault("check").stderr == ""
    assert "table inet ifdefault" in ruleset(host)
    answers.assert_answered(host.world)


def test_a_stopped_unit_stays_stopped(boot: Boot) -> None:
    host = boot(enable=["nftables.service", AGAIN])
    host.systemctl("restart", "nftables")
    eventually(lambda: host.state(AGAIN) == "active", what="it has run")
    assert "ifdefault" not in ruleset(host)
    assert host.state(ONCE) == host.state(DAEMON) == "inactive"
