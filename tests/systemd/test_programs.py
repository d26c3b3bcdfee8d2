"""Programs that configure interfaces or the packet filter, beside the daemon and without it.

client ── core ─┬─ isp-a ── wan0 ┬─ host, with a systemd of its own
                └─ isp-b ── wan1 ┘

Rules: as Debian ships them, with the least config that lets the lab's traffic in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ifdefault.lab.waiting import PATIENCE_S, eventually
from tests.net import answers
from tests.net.watched import await_states
from tests.systemd.booted import PACKAGING, Booted
from tests.systemd.conftest import Boot

DAEMON, ONCE = "ifdefault.service", "ifdefault-once.service"
UPLINKS = {
    "wan0": (("203.0.113.10/24", "203.0.113.1", 1), ("2001:db8:a::10/48", "2001:db8:a::1", 1024)),
    "wan1": (
        ("198.51.100.10/24", "198.51.100.1", 100),
        ("2001:db8:b::10/48", "2001:db8:b::1", 2048),
    ),
}
HEALS_S = 20.0  # seconds, on a machine that does other things too


@dataclass(frozen=True, slots=True)
class Program:
    unit: str
    files: dict[str, str] = field(default_factory=dict)
    bare: bool = False  # it configures the uplinks, which have no address before
    setup: str = ""  # run before its unit starts for the first time
    reload: str = ""
    warning: str = ""  # of `check`, its beginning


def _networkd() -> dict[str, str]:
    return {
        f"etc/systemd/network/{dev}.network": f"[Match]\nName={dev}\n"
        "[Network]\nIPv6AcceptRA=no\nLLMNR=no\n"
        + "".join(f"Address={address}\n" for address, _, _ in rows)
        + "".join(f"[Route]\nGateway={gateway}\nMetric={n}\n" for _, gateway, n in rows)
        for dev, rows in UPLINKS.items()
    }


def _network_manager() -> dict[str, str]:
    files = {}
    for dev, (v4, v6) in UPLINKS.items():
        lines = ["[connection]", f"id={dev}", "type=ethernet", f"interface-name={dev}"]
        for section, (address, gateway, metric) in (("ipv4", v4), ("ipv6", v6)):
            lines += [f"[{section}]", "method=manual", f"address1={address},{gateway}"]
            lines += [f"route-metric={metric}"]
        text = "\n".join([*lines, ""])
        files[f"etc/NetworkManager/system-connections/{dev}.nmconnection"] = text
    unmanaged = "[keyfile]\nunmanaged-devices=interface-name:lan0\n"
    return files | {"etc/NetworkManager/conf.d/lan.conf": unmanaged}


def _ifupdown() -> dict[str, str]:
    lines = ["auto lo", "iface lo inet loopback"]
    for dev, (v4, v6) in UPLINKS.items():
        lines.append(f"auto {dev}")
        for family, (address, gateway, metric) in (("inet", v4), ("inet6", v6)):
            lines += [f"iface {dev} {family} static", f"  address {address}"]
            lines += [f"  gateway {gateway}", f"  metric {metric}"]
    return {"etc/network/interfaces": "\n".join([*lines, ""])}


REMOVES = "warning: systemd-networkd: removes foreign rules and routes when it restarts"
PROGRAMS = {
    "networkd": Program("systemd-networkd.service", _networkd(), bare=True, warning=REMOVES),
    "NetworkManager": Program("NetworkManager.service", _network_manager(), bare=True),
    "ifupdown": Program("networking.service", _ifupdown(), bare=True),
    "ufw": Program(
        "ufw.service",
        setup="for kind in tcp udp; do ufw allow 7000:7099/$kind; done; ufw --force enable",
        reload="ufw reload",
    ),
    "firewalld": Program(
        "firewalld.service",
        setup="firewall-offline-cmd --set-default-zone=trusted",
        reload="firewall-cmd -q --reload",
    ),
    "fail2ban": Program(
        "fail2ban.service",
        {"etc/fail2ban/jail.d/test.conf": "[sshd]\nlogpath = /etc/fail2ban/no.log\n"},
        setup="touch /etc/fail2ban/no.log",
    ),
}


def await_answers(host: Booted, timeout_s: float = PATIENCE_S) -> None:
    """Until each address is answered by its own uplink."""

    def answered() -> bool:
        return all(tally.ok for tally in answers.ask(host.world, count=1, timeout_s=1.0))

    eventually(answered, timeout_s, what="all is answered")
    answers.assert_answered(host.world)


def restart(host: Booted, program: Program) -> None:
    host.systemctl("restart", program.unit)
    host.await_state(program.unit)
    await_answers(host, HEALS_S)
    if program.reload:
        host.shell(program.reload)
        await_answers(host, HEALS_S)
    warnings = check(host)
    assert [row for row in warnings if not program.warning or program.warning not in row] == []
    assert len(warnings) == bool(program.warning), warnings


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_daemon_starts_first(boot: Boot, name: str) -> None:
    program = PROGRAMS[name]
    host = boot(enable=[DAEMON], files=program.files, bare=program.bare)
    host.await_state(DAEMON)
    host.shell(program.setup)
    host.systemctl("start", program.unit)
    host.await_state(program.unit)
    await_states(host.world, ["up"])
    await_answers(host)
    restart(host, program)
    assert host.show(DAEMON, "NRestarts") == {"NRestarts": "0"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_daemon_starts_after_it(boot: Boot, name: str) -> None:
    program = PROGRAMS[name]
    both = [DAEMON, program.unit]
    host = boot(enable=[] if program.setup else both, files=program.files, bare=program.bare)
    host.shell(program.setup)
    host.systemctl("start", program.unit, DAEMON)
    host.await_state(program.unit)
    await_states(host.world, ["up"])
    await_answers(host)
    restart(host, program)
    host.systemctl("restart", DAEMON)
    await_answers(host, HEALS_S)


def test_ifupdowns_hook_reloads_the_unit(boot: Boot) -> None:
    """Another address, without the daemon."""
    program = PROGRAMS["ifupdown"]
    text = (PACKAGING / "hooks/ifdefault").read_text()
    hooks = {f"etc/network/{name}.d/ifdefault": text for name in ("if-up", "if-post-down")}
    host = boot(enable=[program.unit, ONCE], files=program.files | hooks, bare=True)
    await_answers(host)
    started = host.show(ONCE, "ExecReload")
    host.shell(
        "ifdown wan1; sed -i s/198.51.100.10/198.51.100.20/ /etc/network/interfaces; ifup wan1"
    )
    eventually(lambda: host.show(ONCE, "ExecReload") != started, what="it is reloaded")
    eventually(lambda: "from 198.51.100.20 lookup" in host.shell("ip rule"), what="picked up")


def test_networkd_leaves_ours_alone_as_check_says(boot: Boot) -> None:
    """What it may remove when it restarts is named, and the remedy works as it is printed."""
    program = PROGRAMS["networkd"]
    host = boot(enable=[program.unit], files=program.files, bare=True)
    eventually(
        lambda: host.ifdefault("apply", "--quiet", check=False).returncode == 0, what="apply"
    )
    (warning,) = check(host)
    assert warning.startswith(REMOVES), warning
    host.shell(warning.partition("; ")[2])
    eventually(lambda: check(host) == [], HEALS_S, what="nothing is missing")
    answers.assert_answered(host.world)


def check(host: Booted) -> list[str]:
    return host.ifdefault("check").stderr.splitlines()
