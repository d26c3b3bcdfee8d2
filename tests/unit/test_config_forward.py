"""What lies behind the host and what goes out, in the config file: what it means, and what is
refused, each with line and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifdefault import config
from ifdefault.model.config import (
    Config,
    ForwardConfig,
    ForwardServer,
    OutgoingConfig,
    OutgoingRule,
    Ports,
)
from ifdefault.model.errors import ConfigError
from tests.unit.uplinks import UPLINKS

LINES = UPLINKS.count("\n")
FORWARD = '[[forward]]\nlisten = "tcp:443"\nto = "10.0.0.10"\n'
RULE = '[[outgoing.rule]]\nvia = ["isp-b"]\n'
USERS = {"backup": 34, "root": 0}


def parsed(text: str) -> Config:
    return config.parse(UPLINKS + text, "f.toml", USERS.get)


def errors(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parsed(text)
    return [str(problem) for problem in raised.value.problems]


def told(text: str, line: int, message: str) -> None:
    """The only problem stands at this line of the text, and says so."""
    assert errors(text) == [f"f.toml:{LINES + line}: {message}"]


# --- what is right -------------------------------------------------------------------------


def test_nothing_of_it() -> None:
    assert parsed("[outgoing]").forwards == ()
    assert parsed("[outgoing]").outgoing == parsed("").outgoing == OutgoingConfig()


def test_every_key() -> None:
    text = """
        [[forward]]
        listen = ["TCP:443", "udp:443", "tcp:8443-8444"]
        to = ["10.0.0.10", "FD00::10", { address = "10.0.0.11", weight = 0 }]
        uplinks = ["isp-a"]
        check = "/health?x=%20"
        on_down = "reset"
        [[forward]]
        listen = "tcp:80"
        to = ["10.0.0.10:8080", "[FD00:0::10]:8443", { address = "10.0.0.10", weight = 1000 }]
        [outgoing]
        mode = "balance"
        sticky = true
        udp = true
        masquerade = ["lan0", "br-lan"]
        [[outgoing.rule]]
        via = ["isp-b", "isp-a"]
        to = ["192.0.2.0/24", "2001:DB8:F::/48", "192.0.2.1"]
        transport = "tcp"
        ports = ["8000-8099", 25, "26", "20-22", 8099]
        users = ["backup", 1000, 34]
        [[outgoing.rule]]
        via = ["isp-a"]
        cgroups = ["/system.slice/backup.service", "/user.slice"]
    """
    found = parsed(text)
    assert found.forwards == (
        ForwardConfig(
            (Ports("tcp", 443, 443), Ports("udp", 443, 443), Ports("tcp", 8443, 8444)),
            (
                ForwardServer("10.0.0.10"),
                ForwardServer("fd00::10"),
                ForwardServer("10.0.0.11", weight=0),
            ),
            ("isp-a",),
            "/health?x=%20",
            "reset",
        ),
        ForwardConfig(
            (Ports("tcp", 80, 80),),
            (
                ForwardServer("10.0.0.10", 8080),
                ForwardServer("fd00::10", 8443),
                ForwardServer("10.0.0.10", 0, 1000),
            ),
        ),
    )
    assert found.outgoing == OutgoingConfig(
        "balance",
        True,
        True,
        ("lan0", "br-lan"),
        (
            OutgoingRule(
                ("isp-b", "isp-a"),
                ("192.0.2.0/24", "2001:db8:f::/48", "192.0.2.1/32"),
                "tcp",
                ((20, 22), (25, 26), (8000, 8099)),
                (34, 1000),
            ),
            OutgoingRule(("isp-a",), cgroups=("/system.slice/backup.service", "/user.slice")),
        ),
    )


def test_routed_and_forwarded() -> None:
    found = parsed('routed = ["2001:DB8:B:100::/56", "198.51.100.64/28"]\n[host]\nforwarded="off"')
    assert found.uplinks[1].routed == ("2001:db8:b:100::/56", "198.51.100.64/28")
    assert found.host.forwarded == "off"


@pytest.mark.parametrize(
    ("listen", "check", "becomes"),
    [
        ('"udp:53"', "tcp", "off"),
        ('["udp:53", "tcp:53"]', "tcp", "tcp"),
        ('["udp:53", "tcp:53"]', "/health", "/health"),
        ('"tcp:53"', "off", "off"),
    ],
)
def test_what_is_udp_alone_is_not_asked_by_tcp(listen: str, check: str, becomes: str) -> None:
    text = f'[[forward]]\nlisten = {listen}\nto = "10.0.0.1"\ncheck = "{check}"\n'
    assert parsed(text).forwards[0].check == becomes


def test_what_is_udp_alone_is_not_asked_by_http() -> None:
    told(
        '[[forward]]\nlisten = "udp:443"\nto = "10.0.0.1"\ncheck = "/health"',
        4,
        "forward[0].check: the service is UDP alone, and HTTP is asked over TCP, add its TCP port "
        'to listen, or write check = "off"',
    )


def test_ports_that_meet_elsewhere_are_no_clash() -> None:
    """On another uplink, in another family, by another transport."""
    parsed(FORWARD.replace("tcp", "udp") + FORWARD + FORWARD.replace("10.0.0.10", "fd00::10"))
    on_a, on_b = (f'{FORWARD}uplinks = ["isp-{x}"]\n' for x in "ab")
    parsed(on_a + on_b)


def test_users_of_this_host(tmp_path: Path) -> None:
    """`read` asks the user database; `parse` alone knows nobody."""
    file = tmp_path / "f.toml"
    file.write_text(f'{UPLINKS}{RULE}users = ["root", "0"]\n'.replace(', "0"', ", 7"))
    assert config.read(file).outgoing.rules[0].users == (0, 7)
    with pytest.raises(ConfigError, match='"root" is no user of this host'):
        config.parse(file.read_text(), "f.toml")


# --- forwards ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('listen = "443"', '"443" names no transport, write "tcp:443" or "udp:443"'),
        ('listen = "https"', '"https" names no transport, write "tcp:443" or "udp:443"'),
        ('listen = "sctp:9"', '"sctp:9" names no transport, write "tcp:9" or "udp:9"'),
        ('listen = "tcp:"', '"tcp:" is no port, write it like "tcp:443"'),
        ('listen = "udp:x"', '"udp:x" is no port, write it like "udp:443"'),
        ('listen = "tcp:0"', '"tcp:0": 0 is no port, use 1 to 65535'),
        ('listen = "tcp:1-65536"', '"tcp:1-65536": 65536 is no port, use 1 to 65535'),
        ('listen = "tcp:9-8"', '"tcp:9-8" ends before it begins, write "8-9"'),
        ("listen = 443", 'not a text, write it in "double quotes"'),
        ("listen = []", 'no port, name one, such as "tcp:443"'),
        (
            'listen = ["tcp:80", "udp:1", "tcp:1-100"]',
            '"tcp:1-100" and "tcp:80" overlap, name each port once',
        ),
    ],
)
def test_listen(line: str, message: str) -> None:
    told(f'[[forward]]\n{line}\nto = "10.0.0.10"', 2, f"forward[0].listen: {message}")


@pytest.mark.parametrize(
    ("line", "where", "message"),
    [
        ("to = []", "to", 'no server, name one, as in to = ["10.0.0.10"]'),
        ('to = "content"', "to", '"content" is not an IP address, write it like "10.0.0.10"'),
        ('to = "a:80"', "to", '"a" is not an IP address, write it like "10.0.0.10"'),
        ("to = 3", "to", 'not a text, write it in "double quotes"'),
        ('to = "127.0.0.1"', "to", '"127.0.0.1" is no host on a link, write it like "10.0.0.10"'),
        ('to = ["10.0.0.0/24"]', "to[0]", '"10.0.0.0/24" is a prefix, drop the length: "10.0.0.0"'),
        (
            'to = "fe80::1"',
            "to",
            '"fe80::1" is link-local, name an address that needs no interface',
        ),
        ('to = "10.0.0.1:0"', "to", '"10.0.0.1:0": 0 is no port, use 1 to 65535'),
        ('to = "[fd00::1]:x"', "to", '"[fd00::1]:x" is no port, write it like "10.0.0.10:8080"'),
        (
            'to = "10.0.0.1:80-90"',
            "to",
            '"10.0.0.1:80-90" is a range, drop it: a range keeps the ports that were asked for',
        ),
        (
            'to = ["10.0.0.1", {address = "10.0.0.1", weight = 2}]',
            "to",
            '"10.0.0.1" is named more than once, name it once, with a weight',
        ),
        ('to = {address = "10.0.0.1", weight = -1}', "to", "-1 is too small, use 0 or more"),
        (
            'to = [{address = "10.0.0.1", weight = 1001}]',
            "to[0].weight",
            "1001 is too much, use 1000 or less",
        ),
        (
            'to = [{address = "10.0.0.1", wieght = 1}]',
            "to[0].wieght",
            "unknown key, the nearest is weight",
        ),
        (
            'to = ["10.0.0.1", {address = "fd00::1", weight = 0}]',
            "to",
            (
                "every IPv6 server has weight 0, leave one that gets connections, or drop those "
                "that are to get none"
            ),
        ),
        (
            "to = " + str([f"10.0.0.{n}" for n in range(1, 66)]),
            "to",
            "65 of them, keep at most 64",
        ),
        ('to = ["x"]\ncheck = "x"', "to[0]", ""),
    ],
)
def test_servers(line: str, where: str, message: str) -> None:
    first, *_ = errors(f'[[forward]]\nlisten = "tcp:80"\n{line}')
    assert first.startswith(f"f.toml:{LINES + 3}: forward[0].{where}: {message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            'check = "http"',
            ('check: "http" is no choice, use "tcp", "off", or a path to GET such as "/health"'),
        ),
        (
            'check = "/a b"',
            ('check: "/a b" has foreign letters, a # or is too long, write them as %20'),
        ),
        (
            'check = "/#x"',
            ('check: "/#x" has foreign letters, a # or is too long, write them as %20'),
        ),
        ('on_down = "drop"', 'on_down: "drop" is no choice, use one of "next" or "reset"'),
        ('uplinks = ["isp-c"]', 'uplinks[0]: "isp-c" is no uplink, the nearest is isp-b'),
        ('uplinks = ["zzz"]', 'uplinks[0]: "zzz" is no uplink, use isp-a or isp-b'),
        ("uplinks = []", "uplinks: no uplink, name one"),
        ('uplinks = ["isp-a", "isp-a"]', 'uplinks: "isp-a" is named more than once, name it once'),
        ("listens = 1", "listens: unknown key, the nearest is listen"),
    ],
)
def test_forward_keys(line: str, message: str) -> None:
    told(f"{FORWARD}{line}", 4, f"forward[0].{message}")


def test_a_forward_needs_ports_and_servers() -> None:
    assert errors("[[forward]]") == [
        (
            f"f.toml:{LINES + 1}: forward[0].listen: missing, name ports that clients ask for, as "
            'in listen = "tcp:443"'
        ),
        (
            f"f.toml:{LINES + 1}: forward[0].to: missing, name the content servers, as in "
            'to = ["10.0.0.10"]'
        ),
    ]
    told("[forward]\nto = 1", 1, "forward: a table alone, write [[forward]], there may be several")


def test_two_forwards_on_one_port() -> None:
    """Each is named by its line, however the tables between fare."""
    between = '[[forward]]\nlisten = "x"\nto = "10.0.0.1"\n'
    found = errors(
        f'{FORWARD}{between}[[forward]]\nlisten = ["udp:1", "tcp:400-500"]\nto="10.0.0.2"'
    )
    assert found[1:] == [
        (
            f"f.toml:{LINES + 8}: forward[2].listen[1]: tcp:400-500 is taken by tcp:443 in line "
            f"{LINES + 2}, keep one of them, or offer them on uplinks of their own"
        )
    ]


def test_a_range_keeps_its_ports() -> None:
    told(
        '[[forward]]\nlisten = ["tcp:1", "tcp:80-90"]\nto = ["10.0.0.1",\n"[fd00::1]:80"]',
        4,
        'forward[0].to[1]: "[fd00::1]:80" has a port, and tcp:80-90 is a range, drop the port: a '
        "range keeps those that clients ask for",
    )


@pytest.mark.parametrize("own", ["203.0.113.10", "2001:db8:a::10", "198.51.100.77"])
def test_the_host_itself_is_no_content_server(own: str) -> None:
    found = errors(FORWARD.replace("10.0.0.10", own))
    uplink = "isp-b" if own == "198.51.100.77" else "isp-a"
    assert found == [
        (
            f'f.toml:{LINES + 3}: forward[0].to: "{own}" is an address of uplink.{uplink}, name a '
            "server behind the host: its own services need no table"
        )
    ]


def test_the_port_of_the_embedded_server() -> None:
    dns = '[dns.server]\nzones = ["example.net"]\n[[forward]]\nlisten = ["tcp:1", "udp:50-60"]\n'
    told(
        f'{dns}to = "10.0.0.1"',
        4,
        "forward[0].listen[1]: port 53 is that of [dns.server], leave it to that, or give that "
        "another port",
    )


@pytest.mark.parametrize(
    "what", [FORWARD, '[outgoing]\nmasquerade = ["lan0"]\n', FORWARD.replace("tcp", "x")]
)
def test_what_is_forwarded_must_be_followed(what: str) -> None:
    found = errors(f'{what}[host]\nforwarded = "off"')
    assert found[-1].endswith(
        'host.forwarded: "off", and [[forward]] or masquerade, whose answers must follow, drop it, '
        "or them"
    )


# --- outgoing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('mode = "robin"', 'mode: "robin" is no choice, use one of "failover" or "balance"'),
        ("sticky = 1", "sticky: not true or false, write one of them without quotes"),
        ('udp = "true"', "udp: not true or false, write one of them without quotes"),
        ('masquerade = "lan0"', 'masquerade: not a list, write it in brackets: ["…"]'),
        (
            'masquerade = ["lan0", "a/b"]',
            (
                'masquerade[1]: "a/b" can\'t be an interface, use its name in `ip link`, at most '
                "15 characters"
            ),
        ),
        (
            'masquerade = ["lan0", "lan0"]',
            'masquerade: "lan0" is named more than once, name it once',
        ),
        (
            'masquerade = ["lan0", "wan1"]',
            (
                'masquerade[1]: "wan1" is the interface of uplink.isp-b, name those of the LANs '
                "behind the host"
            ),
        ),
        (
            "rule = {}",
            "rule: a table alone, write [[outgoing.rule]], there may be several",
        ),
        ("mod = 1", "mod: unknown key, the nearest is mode"),
    ],
)
def test_outgoing_keys(line: str, message: str) -> None:
    told(f"[outgoing]\n{line}", 2, f"outgoing.{message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('to = ["x"]', 'to[0]: "x" is no prefix, write it like "192.0.2.0/24"'),
        (
            'to = ["192.0.2.7/24"]',
            'to[0]: "192.0.2.7/24" has bits behind its length, write "192.0.2.0/24"',
        ),
        (
            'to = ["224.0.0.0/4"]',
            'to[0]: "224.0.0.0/4" isn\'t beyond an uplink, write it like "192.0.2.0/24"',
        ),
        (
            'to = ["::ffff:192.0.2.0/120"]',
            'to[0]: "::ffff:192.0.2.0/120" isn\'t beyond an uplink, write it like "192.0.2.0/24"',
        ),
        ('transport = "icmp"', 'transport: "icmp" is no choice, use one of "tcp" or "udp"'),
        ("ports = [25]", 'ports: ports of no transport, add transport = "tcp", or "udp"'),
        ("ports = [0]", 'ports[0]: "0": 0 is no port, use 1 to 65534'),
        ('ports = ["1-65535"]', 'ports[0]: "1-65535": 65535 is no port, use 1 to 65534'),
        ("ports = [true]", 'ports[0]: true is no port, write it like 25 or "8000-8099"'),
        ('ports = ["9-8"]', 'ports[0]: "9-8" ends before it begins, write "8-9"'),
        ("users = [-1]", "users[0]: -1 is no user, use a uid such as 1000, or a name"),
        (
            "users = [4294967295]",
            ("users[0]: 4294967295 is no user, use a uid such as 1000, or a name"),
        ),
        ('users = ["a b"]', 'users[0]: "a b" is no user, use a uid such as 1000, or a name'),
        ('users = ["nemo"]', 'users[0]: "nemo" is no user of this host, see `getent passwd`'),
        (
            'cgroups = ["a"]',
            (
                'cgroups[0]: "a" is no control group, write it from the root, like '
                '"/system.slice/backup.service"'
            ),
        ),
        (
            'cgroups = ["/"]',
            (
                'cgroups[0]: "/" is no control group, write it from the root, like '
                '"/system.slice/backup.service"'
            ),
        ),
        (
            'cgroups = ["/a/../b"]',
            (
                'cgroups[0]: "/a/../b" is no control group, write it from the '
                'root, like "/system.slice/backup.service"'
            ),
        ),
        ('cgroups = ["/a", "/a"]', 'cgroups: "/a" is named more than once, name it once'),
        (
            'users = [1]\ncgroups = ["/a"]',
            ("cgroups: beside other selectors, make them a rule of their own"),
        ),
        ("by = 1", "by: unknown key, known here are cgroups, ports, to, transport, users, via"),
    ],
)
def test_rule_keys(line: str, message: str) -> None:
    told(f"{RULE}{line}", 2 + len(line.splitlines()), f"outgoing.rule[0].{message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "missing, name uplinks in the order of preference, as in"),
        ("via = []", "no uplink, name one"),
        ('via = ["isp-a", "isp-a"]', '"isp-a" is named more than once, name it once'),
    ],
)
def test_via(line: str, message: str) -> None:
    [problem] = errors(f"[[outgoing.rule]]\nusers = [1]\n{line}")
    assert f"outgoing.rule[0].via: {message}" in problem


def test_via_an_uplink_that_is_not_there() -> None:
    told(
        f'{RULE}users = [1]\n[[outgoing.rule]]\nusers = [2]\nvia = ["isp-a",\n"isp-bb"]',
        7,
        'outgoing.rule[1].via[1]: "isp-bb" is no uplink, the nearest is isp-b',
    )


def test_a_rule_that_selects_nothing_in_particular() -> None:
    told(
        RULE,
        1,
        "outgoing.rule[0]: selects everything, add to, transport, users or cgroups, or give its "
        "uplink the lowest rank",
    )


def test_one_cgroup_in_two_rules() -> None:
    text = f'{RULE}cgroups = ["/a"]\n{RULE}cgroups = ["/b", "/a"]'
    told(text, 6, 'outgoing.rule[1].cgroups[1]: "/a" is in a rule before, keep it in one')


def test_too_many_rules() -> None:
    users = ", ".join(map(str, range(500)))
    many = f'{RULE}users = [{users}]\nto = ["192.0.2.1", "192.0.2.2"]\n'
    assert len(parsed(many).outgoing.rules) == 1
    told(
        f"{many}{RULE}users = [1]",
        5,
        "outgoing.rule[1]: 1001 policy rules up to here, keep at most 1000: every route lookup "
        "walks them",
    )


# --- routed prefixes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("routed", "message"),
    [
        (
            '"2001:db8::1/56"',
            ('[0]: "2001:db8::1/56" has bits behind its length, write "2001:db8::/56"'),
        ),
        ('"::/0"', '[0]: "::/0" is everything, name what the provider routes to this host'),
        (
            '"fe80::/64"',
            ('[0]: "fe80::/64" isn\'t beyond an uplink, write it like "2001:db8:b:100::/56"'),
        ),
        (
            '"2001:db8:f::/48"',
            (
                '[0]: "2001:db8:f::/48" overlaps "2001:db8:f:100::/56" of '
                "uplink.isp-c, give each prefix to the uplink that its provider "
                "routes it over"
            ),
        ),
        (
            '"10.0.0.0/8", "10.1.0.0/16"',
            ('[1]: "10.1.0.0/16" and "10.0.0.0/8" overlap, keep the wider one'),
        ),
        (
            '"203.0.113.0/28"',
            (
                '[0]: "203.0.113.0/28" holds 203.0.113.10 of uplink.isp-a, name the '
                "prefixes that this provider routes to the host"
            ),
        ),
    ],
)
def test_routed(routed: str, message: str) -> None:
    other = '[uplink.isp-c]\ninterface="wan2"\nrouted = ["2001:db8:f:100::/56"]\n'
    text = f'{other}[uplink.isp-d]\ninterface="wan3"\nrouted = [{routed}]'
    told(text, 6, f"uplink.isp-d.routed{message}")


# --- many ----------------------------------------------------------------------------------


_SPANS = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 8), st.sampled_from(["isp-a", "isp-b", ""])),
    max_size=8,
)


@given(_SPANS)
def test_an_overlap_is_found_and_nothing_else(spans: list[tuple[int, int, str]]) -> None:
    tables, clash = "", False
    for n, (first, more, uplink) in enumerate(spans):
        on = f'uplinks = ["{uplink}"]\n' if uplink else ""
        tables += f'[[forward]]\nlisten = "tcp:{first}-{first + more}"\nto = "10.0.0.1"\n{on}'
        clash |= any(
            first <= other + length
            and other <= first + more
            and ("" in (uplink, of_other) or uplink == of_other)
            for other, length, of_other in spans[:n]
        )
    if clash:
        assert all("is taken by" in problem for problem in errors(tables))
    else:
        assert len(parsed(tables).forwards) == len(spans)


def test_ten_thousand_services() -> None:
    tables = (f'[[forward]]\nlisten = "tcp:{n}"\nto = "10.0.0.1:80"\n' for n in range(1, 10001))
    assert len(parsed("".join(tables)).forwards) == 10000


def test_schema_knows_the_tables() -> None:
    schema = config.json_schema()
    tables = schema["$defs"]
    assert schema["properties"]["forward"]["type"] == "array"
    for keys, noun in (
        ("ForwardKeys", ForwardConfig),
        ("RuleKeys", OutgoingRule),
    ):
        assert set(tables[keys]["properties"]) == set(noun.__slots__)
    assert tables["ForwardKeys"]["required"] == ["listen", "to"]
    assert tables["RuleKeys"]["required"] == ["via"]
    to, listen = (tables["ForwardKeys"]["properties"][key]["anyOf"] for key in ("to", "listen"))
    assert listen[1]["items"] == listen[0]
    assert to[0]["anyOf"][1]["properties"]["weight"]["maximum"] == 1000
