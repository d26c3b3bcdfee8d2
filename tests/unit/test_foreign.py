"""Marks in other programs' rulesets as these print them, and systemd-networkd's settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ifdefault.kernel.foreign import (
    iptables_marks,
    networkd_problems,
    nft_marks,
    reverse_path_filters,
)
from ifdefault.model.packet_filter import ForeignMark

META: dict[str, Any] = {"meta": {"key": "mark"}}
CT: dict[str, Any] = {"ct": {"key": "mark"}}


# what a rule does with marks, as text: it sets "=" or compares "?" a whole value, or uses bits
def text(mark: ForeignMark) -> str:
    how = "=" if mark.sets else "?"
    return f"{how}{mark.value:#x}" if mark.value is not None else f"{how}bits {mark.bits:#x}"


def in_nft(*expressions: dict[str, Any], table: str = "fw", family: str = "inet") -> set[str]:
    rule = {"family": family, "table": table, "chain": "c", "handle": 4, "expr": [*expressions]}
    told = {"nftables": [{"metainfo": {}}, {"table": {"name": table}}, {"rule": rule}]}
    found = list(nft_marks(json.dumps(told)))
    assert {mark.where for mark in found} <= {f"nft {family} {table} c, handle 4"}
    assert all(mark.bits == 0xFFFFFFFF for mark in found if mark.value is not None)
    return set(map(text, found))


def put(value: object, key: dict[str, Any] = META) -> dict[str, Any]:
    return {"mangle": {"key": key, "value": value}}


EVERY = "bits 0xffffffff"


@pytest.mark.parametrize(
    ("expression", "uses"),
    [
        (put(1), {"=0x1"}),
        (put(0), {"=0x0"}),
        (put({"|": [META, 0x100]}), {"=bits 0x100"}),
        (put({"|": [{"&": [META, 0xFF00FFFF]}, 0x40000]}), {"=bits 0xff0000"}),
        (put({"^": [META, 7]}), {"=bits 0x7"}),
        (put({"|": [0x100, META]}), {"=bits 0x100"}),
        (put(CT), {f"={EVERY}"}),
        (put({"&": [CT, 0xFF00]}), {"=bits 0xff00", f"={EVERY}"}),
        (put({"|": [{"&": [META, 0xFFFFFF00]}, {"&": [CT, 0xFF]}]}), {"=bits 0xff"}),
        (put(META, CT), {f"={EVERY}"}),
        (put({"|": [CT, 8]}, CT), {"=bits 0x8"}),
        (put({"map": {"key": META, "data": "@m"}}), {f"={EVERY}"}),
        (
            {"match": {"op": "==", "left": {"&": [META, 0xFF0000]}, "right": 0x40000}},
            {"?bits 0xff0000"},
        ),
        ({"match": {"op": "==", "left": META, "right": 5}}, {"?0x5"}),
        ({"match": {"op": "==", "left": CT, "right": {"set": [1, 8]}}}, {"?0x1", "?0x8"}),
        ({"match": {"op": "==", "left": META, "right": {"range": [5, 9]}}}, {"?bits 0xf"}),
        ({"match": {"op": "!=", "left": META, "right": 0}}, set()),
        (
            {"vmap": {"key": META, "data": {"set": [[7, {"accept": None}], [9, {"drop": None}]]}}},
            {"?0x7", "?0x9"},
        ),
        ({"vmap": {"key": {"&": [META, 0xFF]}, "data": {"set": []}}}, {"?bits 0xff"}),
        ({"vmap": {"key": META, "data": "@m"}}, {f"?{EVERY}"}),
        ({"mangle": {"key": {"meta": {"key": "priority"}}, "value": 1}}, set()),
        ({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "wan0"}}, set()),
        ({"accept": None}, set()),
    ],
)
def test_nft(expression: dict[str, Any], uses: set[str]) -> None:
    assert in_nft(expression) == uses


FIREWALLD = Path(__file__).parent / "rulesets" / "firewalld_public.json"


def test_firewallds_reverse_path_filter() -> None:
    [(where, family)] = reverse_path_filters(FIREWALLD.read_text())
    assert (where, family) == ("nft inet firewalld filter_PREROUTING, handle 52", 6)


@pytest.mark.parametrize(
    ("text", "families"),
    [
        (('"prio": 10', '"prio": -150'), ()),  # before addresses are translated
        (('"mark", "iif"', '"mark"'), ()),  # loose
        (('"right": false', '"right": true'), ()),
        (('"ipv6"', '"ipv4"'), (4,)),
    ],
)
def test_other_reverse_path_filters(text: tuple[str, str], families: tuple[int, ...]) -> None:
    found = reverse_path_filters(FIREWALLD.read_text().replace(*text))
    assert tuple(family for _, family in found) == families


def test_our_own_table_is_not_foreign() -> None:
    assert in_nft(put(1), table="ifdefault") == set()
    assert in_nft(put(1), table="ifdefault", family="ip") == {"=0x1"}


@pytest.mark.parametrize(
    ("rule", "uses"),
    [
        ("-j MARK --set-xmark 0x1/0xffffffff", {"=0x1"}),
        ("-j MARK --set-xmark 0x40000/0xff0000", {"=bits 0xff0000"}),
        ("-j MARK --set-xmark 0x0/0xff", {"=bits 0xff"}),
        ("-m mark --mark 0x2/0x3f00 -j ACCEPT", {"?bits 0x3f00"}),
        ("-m mark ! --mark 0x2 -j ACCEPT", {"?0x2"}),
        (
            "-m mark --mark 0x0/0xff00 -j CONNMARK --set-xmark 0x100/0xff00",
            {"?bits 0xff00", "=bits 0xff00"},
        ),
        ("-j CONNMARK --restore-mark --nfmask 0xff00 --ctmask 0xff00", {"=bits 0xff00"}),
        ("-j CONNMARK --save-mark", {f"={EVERY}"}),
        ("-p tcp -j TPROXY --on-port 80 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1", {"=bits 0x1"}),
        ("-p tcp -m tcp --dport 80 -j ACCEPT", set()),
    ],
)
def test_iptables(rule: str, uses: set[str]) -> None:
    saved = f"# by iptables-save\n*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {rule}\nCOMMIT\n"
    found = list(iptables_marks(saved, "ip6tables"))
    assert set(map(text, found)) == uses
    assert {mark.where for mark in found} <= {"ip6tables mangle PREROUTING"}


# --- systemd-networkd ----------------------------------------------------------------------


def host(root: Path, files: dict[str, str], *, comm: str = "systemd-network") -> Path:
    for name, text in {"run/systemd/netif/state": "", "proc/7/comm": f"{comm}\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


ALL_NO = (
    "[Network]\nManageForeignRoutingPolicyRules=no\nManageForeignRoutes=False\n"
    "ManageForeignNextHops = 0\n"
)


def test_networkd_as_shipped_would_take_our_rules_away(tmp_path: Path) -> None:
    [problem] = networkd_problems(host(tmp_path, {}))
    assert problem.warning
    assert "/etc/systemd/networkd.conf.d/ifdefault.conf" in problem.remedy
    assert "ManageForeignRoutingPolicyRules=no\\nManageForeignRoutes=no" in problem.remedy


def test_networkd_told_to_leave_us_alone(tmp_path: Path) -> None:
    assert networkd_problems(host(tmp_path, {"usr/lib/systemd/networkd.conf": ALL_NO})) == ()


def test_networkd_that_does_not_run(tmp_path: Path) -> None:
    assert networkd_problems(host(tmp_path, {}, comm="systemd-resolve")) == ()


def test_networkd_of_another_network_namespace(tmp_path: Path) -> None:
    root = host(tmp_path, {"proc/8/comm": "systemd-network\n", "proc/9/comm": "systemd-network\n"})
    for process, namespace in (("self", 1), ("7", 2), ("8", 3), ("9", 4)):
        link = root / f"proc/{process}/ns/net"
        link.parent.mkdir(parents=True)
        link.symlink_to(f"net:[{namespace}]")
    assert networkd_problems(root) == ()
    link.unlink()
    assert networkd_problems(root) == (), "it has ended, and isn't waited for"
    # that of the host is looked for among those of containers
    link.symlink_to("net:[1]")
    assert len(networkd_problems(root)) == 1


@pytest.mark.parametrize(
    ("files", "manages"),
    [
        ({"etc/systemd/networkd.conf": "", "usr/lib/systemd/networkd.conf": ALL_NO}, True),
        ({"run/systemd/networkd.conf.d/50.conf": ALL_NO}, False),
        (
            {
                "usr/lib/systemd/networkd.conf.d/50.conf": ALL_NO,
                "etc/systemd/networkd.conf.d/50.conf": "",
            },
            True,
        ),
        (
            {
                "etc/systemd/networkd.conf.d/10.conf": ALL_NO,
                "usr/lib/systemd/networkd.conf.d/90.conf": "[Network]\nManageForeignRoutes=\n",
            },
            True,
        ),
        ({"etc/systemd/networkd.conf": "[DHCPv4]\n" + ALL_NO.partition("\n")[2]}, True),
        ({"etc/systemd/networkd.conf": ALL_NO.replace("\n", "\n#", 1)}, True),
    ],
)
def test_networkd_settings_override_each_other(
    tmp_path: Path, files: dict[str, str], manages: bool
) -> None:
    assert bool(networkd_problems(host(tmp_path, files))) is manages
