"""The config file: what it means, and that all errors come at once, with line and remedy."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifdefault import config
from ifdefault.config.toml_lines import line_of, locate
from ifdefault.model.config import (
    Config,
    DaemonConfig,
    HealthConfig,
    HookConfig,
    HostConfig,
    MptcpConfig,
    Probe,
    UplinkConfig,
    WebConfig,
)
from ifdefault.model.errors import ConfigError

UPLINK = '[uplink.isp-a]\ninterface = "wan0"\n'


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        config.parse(text, "f.toml")
    assert raised.value.exit_status == 2
    return [str(problem) for problem in raised.value.problems]


# --- valid configs -------------------------------------------------------------------------


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
        probes = ["tcp://example.net:443"]
        [host]
        mark_mask = "0x0000fc00"
        table_base = 256
        rule_priority = 100
        interface_group = 1
        source_check = "count"
        return_path = "conntrack"
        udp_wildcard = [4433, 443, 443]
        [health]
        probes = ["icmp://[2001:DB8::1]"]
        rounds_per_s = 1
        false_alarm_days = 30
        recover_s = 0
        damp_s = 0.5
        degraded_loss = 0
        degraded_rtt_ms = 150.5
        on_down = "keep"
        [daemon]
        user = "_probe"
        hook_user = 65534
        [hooks]
        up = "/usr/local/sbin/on-up"
        degraded = "/bin/d"
        down = "/bin/e"
        primary = "/bin/f"
        timeout_s = 300
    """
    uplink = UplinkConfig(
        "lan-1",
        "eth0.100",
        ("203.0.113.10", "2001:db8::a"),
        ("203.0.113.1", "fe80::1"),
        ("00:00:5e:00:53:01", "00:00:5e:00:53:02", "00:00:5e:00:53:03"),
        2,
        1000,
        (Probe("tcp", "example.net", 443),),
    )
    assert config.parse(text, "f.toml") == Config(
        (uplink,),
        HostConfig(0xFC00, 256, 100, 1, "count", "conntrack", (443, 4433)),
        HealthConfig((Probe("icmp", "2001:db8::1"),), 1.0, 30.0, 0.0, 0.5, 0.0, 150.5, "keep"),
        DaemonConfig("_probe", "65534"),
        HookConfig("/usr/local/sbin/on-up", "/bin/d", "/bin/e", "/bin/f", 300.0),
    )


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


@pytest.mark.parametrize(
    ("written", "probe"),
    [
        ('"icmp://192.0.2.1"', Probe("icmp", "192.0.2.1")),
        ('"ICMP://Example.NET./"', Probe("icmp", "example.net")),
        ('"icmp://[2001:DB8:0::1]"', Probe("icmp", "2001:db8::1")),
        ('"tcp://[2001:db8::1]:25"', Probe("tcp", "2001:db8::1", 25)),
        ('"http://a.example"', Probe("http", "a.example", 80, "/")),
        ('"http://a.example:81?q=1"', Probe("http", "a.example", 81, "/?q=1")),
        ('"https://a.example/Ok?q=%20"', Probe("https", "a.example", 443, "/Ok?q=%20")),
        (
            '{ url = "http://a.example/ok", status = [204, 200, 204] }',
            Probe("http", "a.example", 80, "/ok", (200, 204)),
        ),
        ('"dns://192.0.2.53"', Probe("dns", "192.0.2.53", 53)),
        ('"dns://192.0.2.53:5353/_x.Net."', Probe("dns", "192.0.2.53", 5353, "_x.net")),
    ],
)
def test_probes(written: str, probe: Probe) -> None:
    parsed = config.parse(f"{UPLINK}probes = [{written}]", "f.toml")
    assert parsed.uplinks[0].probes == (probe,)
    again = config.parse(f'{UPLINK}probes = ["{probe}"]', "f.toml").uplinks[0].probes
    assert again == (Probe(probe.kind, probe.host, probe.port, probe.path),)


def test_an_empty_list_of_probes_is_not_the_same_as_none() -> None:
    text = f"{UPLINK}[uplink.b]\ninterface = 'wan1'\nprobes = []\n[health]\nprobes = []"
    parsed = config.parse(text, "f.toml")
    assert [uplink.probes for uplink in parsed.uplinks] == [None, ()]
    assert parsed.health.probes == ()
    assert config.parse(UPLINK, "f.toml").health == HealthConfig()


# --- invalid configs -----------------------------------------------------------------------


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
            "f.toml:2: host.mark_mask: 0xff isn't 6 adjacent bits; use 6 adjacent bits that "
            "nothing else uses, such as 0x3f000000"
        ),
        (
            'f.toml:3: host.udp_wildcard: "of" is not valid; use "auto", "off" or a list of ports '
            "such as [443]"
        ),
        "f.toml:6: uplink.isp-a.wieght: unknown key; did you mean weight?",
        (
            'f.toml:9: uplink.isp-a.addresses[1]: "203.0.113.11/24" is a prefix; write '
            '"203.0.113.11"'
        ),
        (
            "f.toml:11: uplink.isp-b.interface: missing; name the network interface that leads to "
            "the provider"
        ),
        (
            "f.toml:12: uplink.isp-b.gateways: 2 IPv4 gateways; keep one, and define an uplink for "
            "each other router"
        ),
        (
            'f.toml:16: uplink.d.interface: "lan0" is also the interface of uplink.c; give each '
            "its own gateways, and addresses if they differ"
        ),
    ]


def test_an_old_config_gets_all_new_names_in_one_run() -> None:
    before = f"""\
[host]
truth_meter = "count"
[health]
on_down = "free"
[hooks]
default = "/bin/true"
[[forward]]
listen = "tcp:443"
to = "10.0.0.10"
gone = "reset"
{UPLINK}"""
    assert errors(before) == [
        "f.toml:2: host.truth_meter: was renamed; use source_check",
        'f.toml:4: health.on_down: "free" was renamed; use "end"',
        "f.toml:6: hooks.default: was renamed; use primary",
        "f.toml:10: forward[0].gone: was renamed; use on_down",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mark_mask = true", "2: host.mark_mask: true is not a mask"),
        ("mark_mask = 0x3f01", "0x3f01 isn't 6 adjacent bits"),
        ("mark_mask = 0x1f000000", "0x1f000000 isn't 6 adjacent bits"),
        ("mark_mask = 0x3f00000000", "isn't 6 adjacent bits"),
        ("table_base = 230", "tables 230 to 261 include the reserved 253 to 255; use 256 or"),
        ("table_base = 0", "0 is too small; use 1 or more"),
        ("table_base = 254", "include the reserved"),
        ("table_base = 4294967295", "4294967295 is too large; use 4294967264 or less"),
        ("rule_priority = 99", "99 is too small; use 100 or more"),
        ("rule_priority = 32001", "32001 is too large; use 32000 or less"),
        ("interface_group = 0", "0 is too small; use 1 or more"),
        ('interface_group = "1"', "not a whole number; write it without quotes or a decimal point"),
        (
            'source_check = "dorp"',
            '"dorp" is not valid; use one of "auto", "drop", "count" or "off"',
        ),
        ("return_path = true", "true is not valid; use one of"),
        ("udp_wildcard = [0]", "[0] is not valid"),
        ("udp_wildcard = [true]", "[true] is not valid"),
        ("mark_maks = 1", "unknown key; did you mean mark_mask?"),
        ("zzz = 1", "unknown key; use one of forwarded, interface_group, mark_mask"),
    ],
)
def test_host_keys(line: str, message: str) -> None:
    [problem] = errors(f"[host]\n{line}\n{UPLINK}")
    assert problem.startswith("f.toml:2: host.")
    assert message in problem


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('addresses = ["10.1"]', '"10.1" is not an IP address; write it like "203.0.113.10"'),
        ('addresses = ["fe80::1"]', '"fe80::1" is link-local'),
        ('addresses = ["127.0.0.1"]', '"127.0.0.1" is not a usable host address'),
        ('addresses = ["::ffff:192.0.2.1"]', 'is an IPv4-mapped IPv6 address; write "192.0.2.1"'),
        ('addresses = "192.0.2.1"', 'not a list; write it in brackets: ["…"]'),
        ("addresses = [1]", 'not a string; write it in "double quotes"'),
        ('gateways = ["fe80::1%wan0"]', 'has a zone index; write "fe80::1"'),
        ('gateways = ["0.0.0.0"]', '"0.0.0.0" is not a usable host address'),
        ('gateways = ["ff02::2"]', '"ff02::2" is not a usable host address'),
        ('gateways = ["fe80::1", "fe80::2"]', "2 IPv6 gateways; keep one"),
        ('router_macs = ["00:00:5e:00:53"]', "is not a MAC address; write it like"),
        ('router_macs = ["ff:ff:ff:ff:ff:ff"]', "is not a unicast MAC address"),
        ("rank = -1", "-1 is too small; use 0 or more"),
        ("rank = true", "not a whole number"),
        ("weight = 0", "0 is too small; use 1 or more"),
        ("weight = 1001", "1001 is too large; use 1000 or less"),
        ("weight = 1.5", "not a whole number"),
        ("gateway = []", "unknown key; did you mean gateways?"),
    ],
)
def test_uplink_keys(line: str, message: str) -> None:
    [problem] = errors(f"{UPLINK}{line}")
    assert problem.startswith("f.toml:3: uplink.isp-a.")
    assert message in problem


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ('"192.0.2.1"', '"192.0.2.1" is not a probe URL; write it like "icmp://192.0.2.1"'),
        ('"2001:db8::1"', 'write it like "icmp://[2001:db8::1]"'),
        ('"a.example:443"', 'write it like "tcp://example.net:443"'),
        ('""', '"" is not a probe URL; write it like "icmp://192.0.2.1"'),
        ('"ftp://a.example"', "ftp is not a kind of probe; use one of icmp, tcp, http, https, dns"),
        ('"icmp://2001:db8::1"', "has too many colons; write IPv6 addresses in brackets"),
        ('"icmp://[a.example]"', "is neither an address nor a name"),
        ('"icmp://a.example:7"', "ICMP has no ports"),
        ('"icmp://a.example/x"', 'icmp has no path; write it like "icmp://192.0.2.1"'),
        ('"icmp://"', "has no host"),
        ('"icmp://fe80::1"', "too many colons"),
        (
            '"icmp://[fe80::1%wan0]"',
            "can't be reached through an uplink; use a host on the Internet",
        ),
        ('"icmp://127.0.0.1"', "can't be reached through an uplink"),
        ('"http://localhost/"', "can't be reached through an uplink"),
        ('"icmp://0.0.0.0"', "is not a host"),
        ('"icmp://[::ffff:192.0.2.1]"', 'is an IPv4-mapped IPv6 address; write "icmp://192.0.2.1'),
        ('"tcp://a.example"', 'has no port; write it like "tcp://example.net:443"'),
        ('"tcp://a.example:"', "has no port"),
        ('"tcp://a.example:0"', "0 is not a port; use 1 to 65535"),
        ('"tcp://a.example:65536"', "65536 is not a port; use 1 to 65535"),
        ('"tcp://a.example:x"', "x is not a port"),
        ('"tcp://a.example:25/x"', "tcp has no path"),
        ('"https://me@a.example/"', "has a user name; remove what precedes the @: probes"),
        ('"https://a.example/#x"', "servers never see what follows #; remove it"),
        ('"https://a.example/a b"', "has spaces or non-ASCII characters; use at most 1000"),
        ('"https://münchen.example/"', "others as %20 or xn--"),
        (f'"https://a.example/{"x" * 1000}"', "is too long"),
        ('"icmp://a..example"', "a..example is neither an address nor a name"),
        ('"icmp://-a.example"', "is neither an address nor a name"),
        (f'"icmp://{"a" * 64}.example"', "is neither an address nor a name"),
        (f'"icmp://{"a." * 127}aa"', "is neither an address nor a name"),
        ('"icmp://192.0.2"', "192.0.2 is neither an address nor a name"),
        ('"dns://192.0.2.53/a..b"', '"a..b" is not a name to query'),
        ("3", 'not a string; write it like "icmp://192.0.2.1"'),
        (
            '{ url = "icmp://192.0.2.1", status = [200] }',
            "icmp probes have no status; remove it, or use",
        ),
        ('{ url = "http://a.example", status = [99] }', ".status[0]: 99 is too small; use 100 or"),
        ('{ url = "http://a.example", status = [600] }', ".status[0]: 600 is too large; use 599"),
        ('{ url = "http://a.example", stat = [200] }', ".stat: unknown key; did you mean status?"),
        ("{ status = [200] }", '.url: missing; write the URL to probe, as in url = "https://'),
        ('"icmp://192.0.2.1", "icmp://192.0.2.1/"', '"icmp://192.0.2.1" is listed more than once'),
    ],
)
def test_probes_that_cannot_be_asked(probe: str, message: str) -> None:
    [problem] = errors(f"{UPLINK}probes = [\n{probe}]")
    assert problem.startswith(
        ("f.toml:4: uplink.isp-a.probes[0]", "f.toml:3: uplink.isp-a.probes:")
    )
    assert message in problem


_URLS = st.text(max_size=20) | st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["icmp", "tcp", "http", "https", "dns", "x"]),
    st.sampled_from(["192.0.2.1", "[2001:db8::1]", "[fe80::1%a]", "a.example", ""])
    | st.text("ab.-_[]%:@1", max_size=12),
    st.sampled_from(["", ":80", ":0", ":"]) | st.text(":0123456789", max_size=7),
    st.sampled_from(["", "/", "/a?b=c", "/#", "?x"]) | st.text("/?#ab.% ", max_size=8),
)


@given(_URLS)
def test_any_text_is_a_probe_or_one_error(url: str) -> None:
    text = f"{UPLINK}probes = [{json.dumps(url)}]"
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # a lone surrogate, or DEL
    try:
        probes = config.parse(text, "f.toml").uplinks[0].probes
    except ConfigError as error:
        [problem] = error.problems
        assert problem.remedy, problem
        return
    assert probes is not None
    again = config.parse(f"{UPLINK}probes = [{json.dumps(str(probes[0]))}]", "f.toml")
    assert again.uplinks[0].probes == probes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[health]\nrounds_per_s = 0", "0 is too small; use 0.1 or more"),
        ("[health]\nrounds_per_s = 2.5", "2.5 is too large; use 2 or less"),
        ("[health]\nfalse_alarm_days = 0.5", "0.5 is too small; use 1 or more"),
        ("[health]\nfalse_alarm_days = 3651", "3651 is too large; use 3650 or less"),
        ("[health]\nrecover_s = -1", "-1 is too small; use 0 or more"),
        ("[health]\nrecover_s = true", "not a number; write it without quotes"),
        ("[health]\ndamp_s = '3'", "not a number; write it without quotes"),
        ("[health]\ndamp_s = 1", "1 is less than recover_s, 2.5; use 2.5 or more"),
        ("[health]\nrecover_s = 100.5", "damp_s: 60 is less than recover_s, 100.5; use 100.5"),
        ("[health]\ndamp_s = inf", "not a finite number"),
        ("[health]\ndegraded_loss = 10", "10 is too large; use 0.9 or less"),
        ("[health]\ndegraded_loss = nan", "not a finite number"),
        ("[health]\ndegraded_rtt_ms = -0.1", "-0.1 is too small; use 0 or more"),
        ("[health]\ndegraded_rtt_ms = 10001", "10001 is too large; use 10000 or less"),
        (f"[health]\ndegraded_rtt_ms = {'9' * 400}", "not a number"),
        ("[health]\non_down = 'kill'", '"kill" is not valid; use one of "end" or "keep"'),
        ("[health]\nprobe = []", "unknown key; did you mean probes?"),
        ("[daemon]\nuser = 'a b'", '"a b" is not a user; use a name or a number'),
        ("[daemon]\nuser = true", "true is not a user"),
        ("[daemon]\nuser = 0", '"0" has all privileges; use an unprivileged user'),
        ("[daemon]\nhook_user = 'root'", '"root" has all privileges'),
        ("[daemon]\nhook_user = ''", '"" is not a user'),
        ("[hooks]\nup = 'hook'", '"hook" is not an absolute path; write it like "/'),
        ("[hooks]\ndown = '/usr/'", '"/usr/" is not a file path'),
        ("[hooks]\nupp = '/a'", "unknown key; did you mean up?"),
        ("[hooks]\ntimeout_s = 0", "0 is too small; use 0.1 or more"),
        ("[hook]\nup = '/a'", "hook: unknown key; did you mean hooks?"),
    ],
)
def test_keys_of_the_daemon(line: str, message: str) -> None:
    [problem] = errors(f"{line}\n{UPLINK}")
    assert problem.startswith("f.toml:")
    assert message in problem


def test_uplinks_and_the_daemon_are_checked_in_one_run() -> None:
    text = f"{UPLINK}probes = ['x']\n[health]\nprobes = ['y']\nrecover_s = -1\ndamp_s = 0\n"
    problems = errors(f"{text}[hooks]\nup = 3\n[demon]")
    assert [problem.split()[0] + problem.split()[1] for problem in problems] == [
        "f.toml:3:uplink.isp-a.probes[0]:",
        "f.toml:5:health.probes[0]:",
        "f.toml:6:health.recover_s:",
        "f.toml:9:hooks.up:",
        "f.toml:10:demon:",
    ]


@pytest.mark.parametrize("name", ["", "a/b", "wan 0", "..", "abcdefghijklmnop", "ä" * 8])
def test_interface_names(name: str) -> None:
    [problem] = errors(f'[uplink.a]\ninterface = "{name}"')
    assert (
        "is not an interface name; use a name that `ip link` shows, at most 15 characters"
        in problem
    )


@pytest.mark.parametrize("name", ["ISP", "-a", "a-", "-", "a_b", '"a.b"', "a" * 32])
def test_uplink_names(name: str) -> None:
    [problem] = errors(f'[uplink.{name}]\ninterface = "wan0"')
    assert problem.startswith("f.toml:1: uplink.")
    assert "use up to 31 of a-z, 0-9 and -" in problem


@pytest.mark.parametrize("text", ["", "[uplink]", "[host]\n"])
def test_no_uplink(text: str) -> None:
    assert errors(text)[-1].endswith('no uplink; add [uplink.isp-a] with interface = "…"')


@pytest.mark.parametrize("text", ["uplink = 3", "[[uplink]]", "[uplink]\na = 3", "host = 3"])
def test_not_a_table(text: str) -> None:
    assert "not a table" in errors(text)[0]


def test_misspelt_table_is_one_error() -> None:
    [problem] = errors('[uplinks.a]\ninterface = "wan0"')
    assert problem == "f.toml:1: uplinks: unknown key; did you mean uplink?"


def test_31_uplinks_and_no_more() -> None:
    blocks = [f'[uplink.u{n}]\ninterface = "wan{n}"\n' for n in range(32)]
    assert len(config.parse("".join(blocks[:31]), "f.toml").uplinks) == 31
    assert "32 uplinks; use at most 31" in errors("".join(blocks))[0]


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
            'f.toml:6: uplink.b.addresses[1]: "192.0.2.10" is also an address of uplink.a; '
            "remove it from one, or give uplink.a gateways or router_macs to tell them apart"
        )
    ]


def test_gateway_that_is_the_host_itself() -> None:
    [problem] = errors(f'{UPLINK}addresses = ["192.0.2.1"]\ngateways = ["192.0.2.1"]')
    assert '"192.0.2.1" is an address of this host; use the provider\'s router' in problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[uplink.a]\ninterface = wan0", "f.toml:2:13: not TOML: invalid value; write text in"),
        (f"{UPLINK}{UPLINK}", "f.toml:3:14: not TOML: cannot declare"),
        ("[uplink.a]\nx", "not TOML: expected '=' after a key"),
        ('a = """', "f.toml:1: not TOML:"),
        (f"a = {'[' * 5000}", "not TOML: nested too deeply"),
    ],
)
def test_not_toml(text: str, message: str) -> None:
    [problem] = errors(text)
    assert problem.startswith(message) or message in problem


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing, garbled = tmp_path / "no.toml", tmp_path / "bad.toml"
    garbled.write_bytes(b"a = '\xff'")
    for path, message in (
        (missing, f"{missing}: no such file; run `ifdefault init` to write one"),
        (tmp_path, f"{tmp_path}: can't be read: is a directory"),
        (garbled, f"{garbled}: byte 5 isn't UTF-8"),
    ):
        with pytest.raises(ConfigError) as raised:
            config.read(path)
        assert str(raised.value).startswith(message)


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


def test_lines_of_lists_of_tables() -> None:
    text = """\
[[dns.name]]
name = "a"
[[dns.name]] # [
records = ["x",
  "y"]
[dns.server]
port = 1
[[dns.name.deep.er]]
k = 1
[[dns.name.deep.er]]
k = 2
[[ "dns" . 'name' ]]
ttl = 1
[[dns.name.deep.er]]
k = 3
"""
    expected: dict[tuple[str | int, ...], int] = {
        ("dns", "name"): 1,
        ("dns", "name", 0): 1,
        ("dns", "name", 0, "name"): 2,
        ("dns", "name", 1): 3,
        ("dns", "name", 1, "records", 1): 5,
        ("dns", "server", "port"): 7,
        ("dns", "name", 1, "deep", "er", 0, "k"): 9,
        ("dns", "name", 1, "deep", "er", 1): 10,
        ("dns", "name", 1, "deep", "er", 1, "k"): 11,
        ("dns", "name", 2): 12,
        ("dns", "name", 2, "ttl"): 13,
        ("dns", "name", 2, "deep", "er", 0, "k"): 15,
    }
    tomllib.loads(text)
    at = locate(text)
    assert {path: at.get(path) for path in expected} == expected
    assert line_of(at, ("dns", "name", 1, "ttl")) == 3


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
        "interface", "addresses", "gateways", "router_macs", "rank", "weight", "probes",
        "public", "routed", "budget", "reset_day", "on_budget", "metered", "hours", "capacity",
        "on_return", "grace",
    }  # fmt: skip
    for keys, noun in (
        ("HostKeys", HostConfig),
        ("HealthKeys", HealthConfig),
        ("DaemonKeys", DaemonConfig),
        ("HookKeys", HookConfig),
        ("MptcpKeys", MptcpConfig),
        ("WebKeys", WebConfig),
    ):
        assert set(schema["$defs"][keys]["properties"]) == set(noun.__slots__)
    assert schema["$defs"]["HealthKeys"]["properties"]["probes"]["default"][0] == "icmp://1.1.1.1"
    assert uplink["additionalProperties"] is False


def test_pydantic_is_loaded_when_a_config_is_read_and_not_before() -> None:
    code = "import sys, ifdefault.config as c; assert 'pydantic' not in sys.modules; "
    code += "c.parse('[uplink.a]\\ninterface=\"x\"', 'f'); assert 'pydantic' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
