"""Marks in other programs' rulesets as these print them, and systemd-networkd's settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ifdefault.kernel.foreign import (
    dropping_chains,
    iptables_marks,
    networkd_problems,
    nft_marks,
)

META: dict[str, Any] = {"meta": {"key": "mark"}}
CT: dict[str, Any] = {"ct": {"key": "mark"}}
WHOLE = 0xFFFFFFFF


def in_nft(*expressions: dict[str, Any], table: str = "fw", family: str = "inet") -> set[int]:
    rule = {"family": family, "table": table, "chain": "c", "handle": 4, "expr": [*expressions]}
    told = {"nftables": [{"metainfo": {}}, {"table": {"name": table}}, {"rule": rule}]}
    found = dict(nft_marks(json.dumps(told)))
    assert set(found.values()) <= {f"nft {family} {table} c, handle 4"}
    return set(found)


def put(value: object, key: dict[str, Any] = META) -> dict[str, Any]:
    return {"mangle": {"key": key, "value": value}}


@pytest.mark.parametrize(
    ("expression", "bits"),
    [
        (put(1), {1, WHOLE}),
        (put({"|": [META, 0x100]}), {0x100}),
        (put({"|": [{"&": [META, 0xFF00FFFF]}, 0x40000]}), {0xFF0000}),
        (put({"^": [META, 7]}), {7}),
        (put({"|": [0x100, META]}), {0x100}),
        (put(CT), {WHOLE}),
        (put({"&": [CT, 0xFF00]}), {0xFF00, WHOLE}),
        (put({"|": [{"&": [META, 0xFFFFFF00]}, {"&": [CT, 0xFF]}]}), {0xFF}),
        (put(META, CT), {WHOLE}),
        (put({"|": [CT, 8]}, CT), {8}),
        (put({"map": {"key": META, "data": "@m"}}), {WHOLE}),
        ({"match": {"op": "==", "left": {"&": [META, 0xFF0000]}, "right": 0x40000}}, {0xFF0000}),
        ({"match": {"op": "==", "left": META, "right": 5}}, {5}),
        ({"match": {"op": "==", "left": CT, "right": {"set": [1, 8]}}}, {9}),
        ({"match": {"op": "==", "left": META, "right": {"range": [5, 9]}}}, {15}),
        ({"match": {"op": "!=", "left": META, "right": 0}}, set()),
        ({"mangle": {"key": {"meta": {"key": "priority"}}, "value": 1}}, set()),
        ({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "wan0"}}, set()),
        ({"accept": None}, set()),
    ],
)
def test_nft(expression: dict[str, Any], bits: set[int]) -> None:
    assert in_nft(expression) == bits


@pytest.mark.parametrize(
    ("chain", "found"),
    [
        ({"family": "ip", "hook": "forward", "policy": "drop"}, True),
        ({"family": "inet", "hook": "forward", "policy": "drop"}, True),
        ({"family": "inet", "hook": "forward", "policy": "accept"}, False),
        ({"family": "inet", "hook": "input", "policy": "drop"}, False),
        ({"family": "bridge", "hook": "forward", "policy": "drop"}, False),
        ({"family": "inet"}, False),
    ],
)
def test_dropping_chains(chain: dict[str, str], found: bool) -> None:
    named = {"table": "filter", "name": "FORWARD", **chain}
    told = json.dumps({"nftables": [{"metainfo": {}}, {"chain": named}]})
    assert dropping_chains(told) == ((chain["family"], "filter", "FORWARD"),) * found


def test_our_own_table_is_not_foreign() -> None:
    assert in_nft(put(1), table="ifdefault") == set()
    assert in_nft(put(1), table="ifdefault", family="ip") == {1, WHOLE}


@pytest.mark.parametrize(
    ("rule", "bits"),
    [
        ("-j MARK --set-xmark 0x1/0xffffffff", {1, WHOLE}),
        ("-j MARK --set-xmark 0x40000/0xff0000", {0xFF0000}),
        ("-j MARK --set-xmark 0x0/0xff", {0xFF}),
        ("-m mark --mark 0x2/0x3f00 -j ACCEPT", {0x3F00}),
        ("-m mark ! --mark 0x2 -j ACCEPT", {2}),
        ("-m mark --mark 0x0/0xff00 -j CONNMARK --set-xmark 0x100/0xff00", {0xFF00}),
        ("-j CONNMARK --restore-mark --nfmask 0xff00 --ctmask 0xff00", {0xFF00}),
        ("-j CONNMARK --save-mark", {WHOLE}),
        ("-p tcp -j TPROXY --on-port 80 --on-ip 0.0.0.0 --tproxy-mark 0x1/0x1", {1}),
        ("-p tcp -m tcp --dport 80 -j ACCEPT", set()),
    ],
)
def test_iptables(rule: str, bits: set[int]) -> None:
    saved = f"# by iptables-save\n*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {rule}\nCOMMIT\n"
    found = list(iptables_marks(saved, "ip6tables"))
    assert {bit for bit, _ in found} == bits
    assert {where for _, where in found} <= {"ip6tables mangle PREROUTING"}


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
    link.unlink()  # that of the host is looked for among those of containers
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
