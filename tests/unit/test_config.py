"""The config file: what it means, and that all errors are told at once, with line and remedy."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifdefault import config
from ifdefault.config.lines import line_of, locate
from ifdefault.errors import ConfigError
from ifdefault.model import Config, HostConfig, UplinkConfig

UPLINK = '[uplink.isp-a]\ninterface = "wan0"\n'


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        config.parse(text, "f.toml")
    assert raised.value.exit_status == 2
    return [str(problem) for problem in raised.value.problems]


# --- what is right -------------------------------------------------------------------------


def test_smallest_config() -> None:
    text = """
        [uplink.isp-a]
        interface = "wan0"
        [uplink.isp-b]
        interface = "wan1"
        gateways = ["198.51.100.1", "2001:db8:b::1"]   # wherever the kernel doesn't know one
    """
    assert config.parse(text, "f.toml") == Config(
        (
            UplinkConfig("isp-a", "wan0"),
            UplinkConfig("isp-b", "wan1", gateways=("198.51.100.1", "2001:db8:b::1")),
        )
    )


def test_every_key() -> None:
    text = """
        [uplink.lan-1]
        interface = "eth0.100"
        addresses = ["203.0.113.10", "2001:DB8:0::A"]
        gateways = ["203.0.113.1", "FE80::1"]
        router_macs = ["00-00-5E-00-53-01", "0000.5e00.5302", "00:00:5e:00:53:03"]
        rank = 2
        weight = 1000
        [host]
        mark_mask = "0x0000fc00"
        table_base = 256
        rule_priority = 100
        interface_group = 1
        truth_meter = "count"
        return_path = "conntrack"
        udp_wildcard = [4433, 443, 443]
    """
    uplink = UplinkConfig(
        "lan-1",
        "eth0.100",
        ("203.0.113.10", "2001:db8::a"),
        ("203.0.113.1", "fe80::1"),
        ("00:00:5e:00:53:01", "00:00:5e:00:53:02", "00:00:5e:00:53:03"),
        2,
        1000,
    )
    host = HostConfig(0xFC00, 256, 100, 1, "count", "conntrack", (443, 4433))
    assert config.parse(text, "f.toml") == Config((uplink,), host)


@pytest.mark.parametrize("mask", ["0x3f", '"0x3f"', "63", "0xfc000000"])
def test_mask_as_number_or_text(mask: str) -> None:
    parsed = config.parse(f"{UPLINK}[host]\nmark_mask = {mask}", "f.toml")
    assert parsed.host.mark_mask in (0x3F, 0xFC000000)


def test_uplinks_that_share_all_but_their_routers() -> None:
    text = """
        [uplink.a]
        interface = "lan0"
        addresses = ["192.0.2.10"]
        gateways = ["192.0.2.1"]
        [uplink.b]
        interface = "lan0"
        addresses = ["192.0.2.10"]
        gateways = ["192.0.2.2"]
        [uplink.c]
        interface = "lan0"
        addresses = ["192.0.2.10"]
        router_macs = ["00:00:5e:00:53:01"]
    """
    assert len(config.parse(text, "f.toml").uplinks) == 3


# --- what is wrong -------------------------------------------------------------------------


def test_all_errors_in_one_run_in_the_order_of_the_file() -> None:
    text = """\
[host]
mark_mask = "0xff"
udp_wildcard = "of"
[uplink.isp-a]
interface = "wan0"
wieght = 3
addresses = [
  "203.0.113.10",
  "203.0.113.11/24",  # "]
]
[uplink.isp-b]
gateways = ["198.51.100.1", "198.51.100.2"]
[uplink.c]
interface = "lan0"
[uplink.d]
interface = "lan0"
"""
    assert errors(text) == [
        (
            "f.toml:2: host.mark_mask: 0xff isn't 6 adjacent bits, use 6 adjacent bits that nobody "
            "else marks, such as 0x3f000000"
        ),
        (
            'f.toml:3: host.udp_wildcard: "of" is no choice, use "auto", "off" or a list of ports '
            "such as [443]"
        ),
        "f.toml:6: uplink.isp-a.wieght: unknown key, the nearest is weight",
        (
            'f.toml:9: uplink.isp-a.addresses[1]: "203.0.113.11/24" is a prefix, drop the length: '
            '"203.0.113.11"'
        ),
        (
            "f.toml:11: uplink.isp-b.interface: missing, name the network interface that leads to "
            "the provider"
        ),
        (
            "f.toml:12: uplink.isp-b.gateways: 2 IPv4 gateways, keep one, and make each further "
            "router an uplink of its own"
        ),
        (
            'f.toml:16: uplink.d.interface: "lan0" is the interface of uplink.c too, give each '
            "gateways of its own, and addresses where they differ"
        ),
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("mark_mask = true", "2: host.mark_mask: true is not a mask"),
        ("mark_mask = 0x3f01", "0x3f01 isn't 6 adjacent bits"),
        ("mark_mask = 0x1f000000", "0x1f000000 isn't 6 adjacent bits"),
        ("mark_mask = 0x3f00000000", "isn't 6 adjacent bits"),
        ("table_base = 230", "tables 230 to 261 hold the reserved ones, 253 to 255, use 256 or"),
        ("table_base = 0", "0 is too small, use 1 or more"),
        ("table_base = 254", "hold the reserved ones"),
        ("table_base = 4294967295", "4294967295 is too much, use 4294967264 or less"),
        ("rule_priority = 99", "99 is too small, use 100 or more"),
        ("rule_priority = 32001", "32001 is too much, use 32000 or less"),
        ("interface_group = 0", "0 is too small, use 1 or more"),
        ('interface_group = "1"', "not a whole number, write it without quotes or point"),
        (
            'truth_meter = "dorp"',
            '"dorp" is no choice, use one of "auto", "drop", "count" or "off"',
        ),
        ("return_path = true", "true is no choice, use one of"),
        ("udp_wildcard = [0]", "[0] is no choice"),
        ("udp_wildcard = [true]", "[true] is no choice"),
        ("mark_maks = 1", "unknown key, the nearest is mark_mask"),
        ("zzz = 1", "unknown key, known here are interface_group, mark_mask, return_path"),
    ],
)
def test_host_keys(line: str, told: str) -> None:
    [problem] = errors(f"[host]\n{line}\n{UPLINK}")
    assert problem.startswith("f.toml:2: host.")
    assert told in problem


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('addresses = ["10.1"]', '"10.1" is not an IP address, write it like "203.0.113.10"'),
        ('addresses = ["fe80::1"]', '"fe80::1" is link-local'),
        ('addresses = ["127.0.0.1"]', '"127.0.0.1" is no host on a link'),
        ('addresses = ["::ffff:192.0.2.1"]', 'is an IPv4 address in IPv6, write "192.0.2.1"'),
        ('addresses = "192.0.2.1"', 'not a list, write it in brackets: ["…"]'),
        ("addresses = [1]", 'not a text, write it in "double quotes"'),
        ('gateways = ["fe80::1%wan0"]', 'has a zone, drop it: "fe80::1", the interface is known'),
        ('gateways = ["0.0.0.0"]', '"0.0.0.0" is no host on a link'),
        ('gateways = ["ff02::2"]', '"ff02::2" is no host on a link'),
        ('gateways = ["fe80::1", "fe80::2"]', "2 IPv6 gateways, keep one"),
        ('router_macs = ["00:00:5e:00:53"]', "is not a MAC address, write it like"),
        ('router_macs = ["ff:ff:ff:ff:ff:ff"]', "is no single router's MAC address"),
        ("rank = -1", "-1 is too small, use 0 or more"),
        ("rank = true", "not a whole number"),
        ("weight = 0", "0 is too small, use 1 or more"),
        ("weight = 1001", "1001 is too much, use 1000 or less"),
        ("weight = 1.5", "not a whole number"),
        ("gateway = []", "unknown key, the nearest is gateways"),
    ],
)
def test_uplink_keys(line: str, told: str) -> None:
    [problem] = errors(f"{UPLINK}{line}")
    assert problem.startswith("f.toml:3: uplink.isp-a.")
    assert told in problem


@pytest.mark.parametrize("name", ["", "a/b", "wan 0", "..", "abcdefghijklmnop", "ä" * 8])
def test_interface_names(name: str) -> None:
    [problem] = errors(f'[uplink.a]\ninterface = "{name}"')
    assert "can't be an interface, use its name in `ip link`, at most 15 characters" in problem


@pytest.mark.parametrize("name", ["ISP", "-a", "a_b", '"a.b"', "a" * 32])
def test_uplink_names(name: str) -> None:
    [problem] = errors(f'[uplink.{name}]\ninterface = "wan0"')
    assert problem.startswith("f.toml:1: uplink.")
    assert "use up to 31 of a-z, 0-9 and -" in problem


@pytest.mark.parametrize("text", ["", "[uplink]", "[host]\n"])
def test_no_uplink(text: str) -> None:
    assert errors(text)[-1].endswith('no uplink, add [uplink.isp-a] and interface = "…" below it')


@pytest.mark.parametrize("text", ["uplink = 3", "[[uplink]]", "[uplink]\na = 3", "host = 3"])
def test_not_a_table(text: str) -> None:
    assert "not a table" in errors(text)[0]


def test_misspelt_table_is_one_error() -> None:
    [problem] = errors('[uplinks.a]\ninterface = "wan0"')
    assert problem == "f.toml:1: uplinks: unknown key, the nearest is uplink"


def test_31_uplinks_and_no_more() -> None:
    blocks = [f'[uplink.u{n}]\ninterface = "wan{n}"\n' for n in range(32)]
    assert len(config.parse("".join(blocks[:31]), "f.toml").uplinks) == 31
    assert "32 uplinks, keep at most 31" in errors("".join(blocks))[0]


def test_shared_address_needs_routers_told_apart() -> None:
    text = """\
[uplink.a]
interface = "wan0"
addresses = ["192.0.2.10"]
[uplink.b]
interface = "wan1"
addresses = ["192.0.2.11", "192.0.2.10"]
gateways = ["192.0.2.1"]
"""
    assert errors(text) == [
        (
            'f.toml:6: uplink.b.addresses[1]: "192.0.2.10" is an address of uplink.a too, drop it '
            "from one, or give uplink.a gateways or router_macs to tell them apart"
        )
    ]


def test_gateway_that_is_the_host_itself() -> None:
    [problem] = errors(f'{UPLINK}addresses = ["192.0.2.1"]\ngateways = ["192.0.2.1"]')
    assert "\"192.0.2.1\" is the host's own, name the provider's router" in problem


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[uplink.a]\ninterface = wan0", "f.toml:2:13: not TOML: invalid value, write text in"),
        (f"{UPLINK}{UPLINK}", "f.toml:3:14: not TOML: cannot declare"),
        ("[uplink.a]\nx", "not TOML: expected '=' after a key"),
        ('a = """', "f.toml:1: not TOML:"),
        (f"a = {'[' * 5000}", "not TOML: nested too deep"),
    ],
)
def test_not_toml(text: str, told: str) -> None:
    [problem] = errors(text)
    assert problem.startswith(told) or told in problem


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing, garbled = tmp_path / "no.toml", tmp_path / "bad.toml"
    garbled.write_bytes(b"a = '\xff'")
    for path, told in (
        (missing, f"{missing}: no such file, `ifdefault init` writes one"),
        (tmp_path, f"{tmp_path}: can't be read: is a directory"),
        (garbled, f"{garbled}: byte 5 isn't UTF-8"),
    ):
        with pytest.raises(ConfigError) as raised:
            config.read(path)
        assert str(raised.value).startswith(told)


# --- lines, schema, start-up ---------------------------------------------------------------


def test_lines_of_every_way_to_write_toml() -> None:
    text = '''\
# [no.table]
top = 1
[a."b.c"]  # comment ]
x = """
[not.a.table]
y = 1 """"
list = [ # [
  "one]", 'two #',

  { deep = { er = 1 }, b = [ 1.5,
    2026-01-01 00:00:00 ] },
]
dotted.'key' . z = 'it"s'
[a.d]
esc = "\\\\"
last = 1
'''
    at = locate(text)
    expected: dict[tuple[str | int, ...], int] = {
        ("top",): 2,
        ("a", "b.c"): 3,
        ("a", "b.c", "x"): 4,
        ("a", "b.c", "list"): 7,
        ("a", "b.c", "list", 1): 8,
        ("a", "b.c", "list", 2, "deep", "er"): 10,
        ("a", "b.c", "list", 2, "b", 1): 11,
        ("a", "b.c", "dotted", "key", "z"): 13,
        ("a", "d", "esc"): 15,
        ("a", "d", "last"): 16,
    }
    assert {path: at.get(path) for path in expected} == expected
    assert ("not", "a", "table") not in at
    assert line_of(at, ("a", "d", "last", 7, "x")) == 16
    assert line_of(at, ("nowhere",)) == 1


def _list(items: list[str]) -> str:
    return "[ " + ", # ]\n".join(items) + " ]"


def _inline_table(items: list[str]) -> str:
    return "{ " + ", ".join(f"k{n} = {value}" for n, value in enumerate(items)) + " }"


_VALUES = st.recursive(
    st.sampled_from(["1", "1.5", '"]"', "'#'", '"""\n[x]\n"""', "'''\n'''", "true", '"\\""']),
    lambda inner: (
        st.lists(inner, max_size=3).map(_list) | st.lists(inner, max_size=3).map(_inline_table)
    ),
    max_leaves=6,
)


@given(st.lists(st.tuples(st.booleans(), _VALUES), max_size=6))
def test_every_key_has_the_line_it_was_written_on(rows: list[tuple[bool, str]]) -> None:
    text = ""
    table: tuple[str, ...] = ()
    expected = {}
    for n, (opens_table, value) in enumerate(rows):
        if opens_table:
            table = (f"t{n}",)
            text += f"[t{n}]\n"
        expected[*table, f"key{n}"] = text.count("\n") + 1
        text += f"key{n} = {value}\n"
    tomllib.loads(text)
    at = locate(text)
    assert {path: at[path] for path in expected} == expected


def test_schema_knows_the_keys() -> None:
    schema = config.json_schema()
    uplink: dict[str, Any] = schema["$defs"]["UplinkKeys"]
    assert uplink["required"] == ["interface"]
    assert set(uplink["properties"]) == {
        "interface", "addresses", "gateways", "router_macs", "rank", "weight",
    }  # fmt: skip
    assert set(schema["$defs"]["HostKeys"]["properties"]) == set(HostConfig.__slots__)
    assert uplink["additionalProperties"] is False


def test_pydantic_is_loaded_when_a_config_is_read_and_not_before() -> None:
    code = "import sys, ifdefault.config as c; assert 'pydantic' not in sys.modules; "
    code += "c.parse('[uplink.a]\\ninterface=\"x\"', 'f'); assert 'pydantic' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
