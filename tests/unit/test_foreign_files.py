"""What other programs' files say of rules and tables, whole or broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifdefault.host import foreign_files
from ifdefault.host.foreign_files import ForeignFiles
from ifdefault.host.foreign_syntax import (
    NAMES,
    Statement,
    ip_commands,
    network_manager,
    networkd,
    shorewall_marks,
    shorewall_providers,
    shorewall_rules,
)
from ifdefault.model.config import OutgoingRule
from ifdefault.model.kernel import Rule

TWO = {**NAMES, "two": 102}
FROM_B = Rule(4, 100, table=102, src="198.51.100.10/32")


def written(root: Path, files: dict[str, str]) -> ForeignFiles:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return foreign_files.read(root)


# --- ip(8) ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "ip rule add from 198.51.100.10 table two prio 100",
        "/sbin/ip -4 rule add prio 100 from 198.51.100.10/32 lookup 102",
        "  post-up ip ru a from 198.51.100.10 pref 0x64 table 0x66 || true",
        "if true; then ip rule add from $B table two; fi  # a comment with a ' quote",
        "[ -x /sbin/ip ] && $IP rule add from 198.51.100.10 table $TABLE",
        "ip rule add from 198.51.100.10 \\\n  table two",
        "echo 'it is' laid; (ip rule add from 198.51.100.10 table two)",
        "ExecStart=/usr/sbin/ip rule add from 198.51.100.10 table two",
        "sh -c 'sleep 1; ip rule add from 198.51.100.10 table two'",
        "ip rule add from 198.51.100.10 table two 'an open quote",
        "ip rule del from 198.51.100.10 table two",
    ],
)
def test_commands_that_lay_a_rule(line: str) -> None:
    [statement] = ip_commands("a script", "/f", line, TWO)
    assert statement.lays(FROM_B)
    assert not statement.lays(Rule(6, 100, table=102, src="2001:db8::1/128"))
    assert not statement.lays(Rule(4, 100, table=102, src="198.51.100.10/32", iif="lan0"))


@pytest.mark.parametrize(
    "line",
    [
        "ip rule show",
        "ip route add 192.0.2.0/24 via 10.0.0.1",
        "ip link set wan0 up",
        "# ip rule add from 198.51.100.10 table two",
        "zip rule add",
        "ip",
        "ip rule",
        "",
    ],
)
def test_commands_that_lay_none(line: str) -> None:
    assert list(ip_commands("a script", "/f", line, TWO)) == []


def test_other_selectors_and_families() -> None:
    line = "ip -6 rule add to 2001:db8:f::/48 fwmark 0x1/0xff iif lan0 lookup 7"
    [statement] = ip_commands("a script", "/f", line, TWO)
    rule = Rule(6, 3, table=7, dst="2001:db8:f::/48", mark=1, mask=255, iif="lan0")
    assert statement.lays(rule)
    [route] = ip_commands("a script", "/f", "\nip route add default via 1.2.3.4 table 7", TWO)
    assert (route.kind, route.table, route.where) == ("route", 7, "/f:2")


# --- networkd and NetworkManager -----------------------------------------------------------------

NETWORK = """\
[Match]
Name=wan1

[RoutingPolicyRule]
From=198.51.100.10
Table=102
# Priority=7

[Route]
Gateway=198.51.100.1
Table=two
[Route]
Gateway=198.51.100.1
[DHCPv4]
RouteTable=103
"""


def test_sections_of_networkd() -> None:
    rule, route, learned = networkd("systemd-networkd", "/f", NETWORK, TWO)
    assert rule.lays(FROM_B)
    assert rule.text == "[RoutingPolicyRule] From=198.51.100.10 Table=102"
    assert [(s.line, s.kind, s.table) for s in (rule, route, learned)] == [
        (4, "rule", 102),
        (9, "route", 102),
        (15, "route", 103),
    ]
    both = "[RoutingPolicyRule]\nFamily=both\nTable=9\n"
    [statement] = networkd("systemd-networkd", "/f", both, TWO)
    assert statement.lays(Rule(4, 1, table=9))
    assert statement.lays(Rule(6, 1, table=9))


def test_keys_of_network_manager() -> None:
    text = (
        "[ipv4]\nroute-table=102\nrouting-rule1=priority 100 from 198.51.100.10/32 table 102\n"
        "route1=0.0.0.0/0,198.51.100.1\nroute1_options=table=102\nroute2_options=mtu=1400\n"
    )
    table, rule, route = network_manager("NetworkManager", "/f", text, TWO)
    assert rule.lays(FROM_B)
    assert [(s.line, s.table) for s in (table, rule, route)] == [(2, 102), (3, 102), (5, 102)]


def test_generated_files_are_shown_with_netplans(tmp_path: Path) -> None:
    netplan = "network:\n  ethernets:\n    wan1:\n      routing-policy:\n"
    netplan += "      - from: 198.51.100.10\n        table: 102\n"
    found = written(
        tmp_path,
        {
            "run/systemd/network/10-netplan-wan1.network": NETWORK,
            "etc/netplan/50-cloud-init.yaml": netplan,
        },
    )
    rule = next(s for s in found.statements if s.lays(FROM_B))
    assert (rule.program, rule.where) == ("netplan", "/etc/netplan/50-cloud-init.yaml:5")
    files = {
        "run/systemd/network/1-netplan-b.network": "[RoutingPolicyRule]\nFrom=2001:db8:b::/64\n",
        "etc/netplan/60-wan1.yaml": "- from: 2001:db8:b::1\n- from: 2001:db8:b::/64\n",
    }
    [rule] = written(tmp_path / "six", files).statements
    assert rule.where == "/etc/netplan/60-wan1.yaml:2"


# --- Shorewall -----------------------------------------------------------------------------------


def test_providers_and_their_rules() -> None:
    text = "#NAME\n?if 1\ntwo 2 0x2 - wan1 198.51.100.1 track\nhalf 3\n?endif\n"
    *rows, half = shorewall_providers("/p", text, six=False)
    assert [(row.line, row.table, row.name) for row in rows] == [
        (3, 2, "two"),
        *((3, table, "") for table in (250, 254, 253)),
    ]
    assert rows[0].lays(Rule(4, 20000, table=2, src="198.51.100.10/32"))
    assert not rows[0].lays(Rule(6, 20000, table=2))
    assert (half.known, half.text) == ((), "half 3")
    assert not half.lays(FROM_B)
    [rule] = shorewall_rules("/r", "192.168.1.0/24 - two 11000!", False, {"two": 2})
    assert rule.lays(Rule(4, 11000, table=2, src="192.168.1.0/24"))
    assert not rule.lays(Rule(4, 11000, table=2))


@pytest.mark.parametrize(
    ("entry", "marks"),
    [
        ("MARK(2) - - tcp 25", OutgoingRule((), (), "tcp", ((25, 25),))),
        (
            "MARK(0x2):P $FW 192.0.2.0/24,198.18.0.1",
            OutgoingRule((), ("192.0.2.0/24", "198.18.0.1/32")),
        ),
        (
            "MARK(2/0xff) 0.0.0.0/0 - udp 53,1000:2000",
            OutgoingRule((), (), "udp", ((53, 53), (1000, 2000))),
        ),
        ("MARK(2) 192.168.1.0/24 - tcp 25", "selects packets from 192.168.1.0/24"),
        ("MARK(2) - - tcp 25 1024", "selects by columns that the config has no key for"),
        ("MARK(2) - - tcp smtp", "isn't understood"),
        ("MARK(2) - dest.example.net", "isn't understood"),
        ("MARK(2) - - - 25", "selects ports without a protocol"),
    ],
)
def test_marks(entry: str, marks: OutgoingRule | str) -> None:
    [statement] = shorewall_marks("/m", entry, six=False)
    assert statement.marks == marks
    assert dict(statement.known)["mark"] == 2


def test_other_entries_of_mangle_are_none() -> None:
    text = "CONNMARK(1) - -\nDSCP(EF) - - udp\nMARK(x)\nCLASSIFY(1:2) - -\n"
    assert list(shorewall_marks("/m", text, six=False)) == []


# --- files that are broken -----------------------------------------------------------------------


def test_what_is_broken_is_passed_over(tmp_path: Path) -> None:
    for name in ("etc/shorewall/providers", "etc/systemd/network", "usr/local/bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "etc/systemd/network/loop.network").symlink_to("loop.network")
    (tmp_path / "etc/systemd/network/gone.network").symlink_to("nowhere")
    (tmp_path / "usr/local/bin/program").write_bytes(b"\x7fELF\0 ip rule add table 5")
    (tmp_path / "usr/local/bin/latin").write_bytes(b"# caf\xe9\nip rule add table 5\n")
    found = written(
        tmp_path,
        {
            "etc/iproute2/rt_tables": "5 five\nx y\n7\n-1 a\n4294967296 b\n0x9 nine # comment\n",
            "etc/systemd/network/no.network": "From=1\n[RoutingPolicyRule\n=\n[Route]\nTable\n",
            "etc/network/interfaces": "post-up ip rule add from\npost-up ip rule add table",
        },
    )
    assert {name for name in found.names if name not in NAMES} == {"five", "nine"}
    assert [(s.where, s.table) for s in found.statements if s.table] == [
        ("/usr/local/bin/latin:2", 5)
    ]
    assert found.unread == []


def test_no_files_at_all(tmp_path: Path) -> None:
    assert foreign_files.read(tmp_path) == ForeignFiles(dict(NAMES))


def test_what_cant_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    written(tmp_path, {"etc/shorewall/providers": "a 1 1 - wan0 -\n"})
    monkeypatch.setattr(Path, "open", refuse)
    found = foreign_files.read(tmp_path)
    assert found.unread == [("/etc/shorewall/providers", "can't be read: permission denied")]
    assert found.statements == []


def test_a_text_that_is_too_large_is_named(tmp_path: Path) -> None:
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    (tmp_path / "usr/local/bin/program").write_bytes(b"\x7fELF\0" + bytes(1 << 19))
    found = written(tmp_path, {"etc/rc.local": "ip rule add table 5\n" + "# and so on\n" * 30000})
    assert found.unread == [("/etc/rc.local", "isn't read: larger than 256 KiB")]
    assert found.statements == []


def test_a_statement_without_anything_known_matches_nothing() -> None:
    assert not Statement("Shorewall", "/p", 1, "?").lays(FROM_B)
