"""[[forward]] and [outgoing] in the config file: what they mean, and what is rejected, with
line and remedy."""

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


def reports(text: str, line: int, message: str) -> None:
    """The only error is at this line of the text, with this message."""
    assert errors(text) == [f"f.toml:{LINES + line}: {message}"]


# --- valid configs -------------------------------------------------------------------------


def test_none_of_them() -> None:
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
    parsed_config = parsed(text)
    assert parsed_config.forwards == (
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
    assert parsed_config.outgoing == OutgoingConfig(
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
    parsed_config = parsed(
        'routed = ["2001:DB8:B:100::/56", "198.51.100.64/28"]\n[host]\nforwarded="off"'
    )
    assert parsed_config.uplinks[1].routed == ("2001:db8:b:100::/56", "198.51.100.64/28")
    assert parsed_config.host.forwarded == "off"


@pytest.mark.parametrize(
    ("listen", "check", "becomes"),
    [
        ('"udp:53"', "tcp", "off"),
        ('["udp:53", "tcp:53"]', "tcp", "tcp"),
        ('["udp:53", "tcp:53"]', "/health", "/health"),
        ('"tcp:53"', "off", "off"),
    ],
)
def test_a_udp_service_is_not_checked_by_tcp(listen: str, check: str, becomes: str) -> None:
    text = f'[[forward]]\nlisten = {listen}\nto = "10.0.0.1"\ncheck = "{check}"\n'
    assert parsed(text).forwards[0].check == becomes


def test_a_udp_service_is_not_checked_by_http() -> None:
    reports(
        '[[forward]]\nlisten = "udp:443"\nto = "10.0.0.1"\ncheck = "/health"',
        4,
        "forward[0].check: an HTTP check needs a TCP port, and the service has only UDP; add its "
        "TCP port "
        'to listen, or set check = "off"',
    )


def test_ports_that_overlap_elsewhere_are_no_conflict() -> None:
    """On another uplink, in another family, by another transport."""
    parsed(FORWARD.replace("tcp", "udp") + FORWARD + FORWARD.replace("10.0.0.10", "fd00::10"))
    on_a, on_b = (f'{FORWARD}uplinks = ["isp-{x}"]\n' for x in "ab")
    parsed(on_a + on_b)


def test_users_of_this_host(tmp_path: Path) -> None:
    """`read` looks users up in the user database; `parse` alone knows no user."""
    file = tmp_path / "f.toml"
    file.write_text(f'{UPLINKS}{RULE}users = ["root", "0"]\n'.replace(', "0"', ", 7"))
    assert config.read(file).outgoing.rules[0].users == (0, 7)
    with pytest.raises(ConfigError, match='"root" is not a user of this host'):
        config.parse(file.read_text(), "f.toml")


# --- forwards ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('listen = "443"', '"443" has no transport; write "tcp:443" or "udp:443"'),
        ('listen = "https"', '"https" has no transport; write "tcp:443" or "udp:443"'),
        ('listen = "sctp:9"', '"sctp:9" has no transport; write "tcp:9" or "udp:9"'),
        ('listen = "tcp:"', '"tcp:" is not a port; write it like "tcp:443"'),
        ('listen = "udp:x"', '"udp:x" is not a port; write it like "udp:443"'),
        ('listen = "tcp:0"', '"tcp:0": 0 is not a port; use 1 to 65535'),
        ('listen = "tcp:1-65536"', '"tcp:1-65536": 65536 is not a port; use 1 to 65535'),
        ('listen = "tcp:9-8"', '"tcp:9-8" ends before it begins; write "8-9"'),
        ("listen = 443", 'not a string; write it in "double quotes"'),
        ("listen = []", 'no port; name one, such as "tcp:443"'),
        (
            'listen = ["tcp:80", "udp:1", "tcp:1-100"]',
            '"tcp:1-100" and "tcp:80" overlap; list each port once',
        ),
    ],
)
def test_listen(line: str, message: str) -> None:
    reports(f'[[forward]]\n{line}\nto = "10.0.0.10"', 2, f"forward[0].listen: {message}")


@pytest.mark.parametrize(
    ("line", "where", "message"),
    [
        ("to = []", "to", 'no server; name one, as in to = ["10.0.0.10"]'),
        ('to = "server"', "to", '"server" is not an IP address; write it like "10.0.0.10"'),
        ('to = "a:80"', "to", '"a" is not an IP address; write it like "10.0.0.10"'),
        ("to = 3", "to", 'not a string; write it in "double quotes"'),
        (
            'to = "127.0.0.1"',
            "to",
            '"127.0.0.1" is not a usable host address; write it like "10.0.0.10"',
        ),
        ('to = ["10.0.0.0/24"]', "to[0]", '"10.0.0.0/24" is a prefix; write "10.0.0.0"'),
        (
            'to = "fe80::1"',
            "to",
            '"fe80::1" is link-local; use an address that needs no interface',
        ),
        ('to = "10.0.0.1:0"', "to", '"10.0.0.1:0": 0 is not a port; use 1 to 65535'),
        ('to = "[fd00::1]:x"', "to", '"[fd00::1]:x" is not a port; write it like "10.0.0.10:8080"'),
        (
            'to = "10.0.0.1:80-90"',
            "to",
            (
                '"10.0.0.1:80-90" has a port range; leave it out: a range in listen keeps the '
                "client's port"
            ),
        ),
        (
            'to = ["10.0.0.1", {address = "10.0.0.1", weight = 2}]',
            "to",
            '"10.0.0.1" is listed more than once; list it once, with a weight',
        ),
        ('to = {address = "10.0.0.1", weight = -1}', "to", "-1 is too small; use 0 or more"),
        (
            'to = [{address = "10.0.0.1", weight = 1001}]',
            "to[0].weight",
            "1001 is too large; use 1000 or less",
        ),
        (
            'to = [{address = "10.0.0.1", wieght = 1}]',
            "to[0].wieght",
            "unknown key; did you mean weight?",
        ),
        (
            'to = ["10.0.0.1", {address = "fd00::1", weight = 0}]',
            "to",
            ("every IPv6 server has weight 0; give one of them a weight, or remove them"),
        ),
        (
            "to = " + str([f"10.0.0.{n}" for n in range(1, 66)]),
            "to",
            "65 items; use at most 64",
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
            ('check: "http" is not valid; use "tcp", "off", or a path to GET such as "/health"'),
        ),
        (
            'check = "/a b"',
            (
                'check: "/a b" is not a valid path; use at most 1000 printable ASCII '
                "characters, others as %20, and no #"
            ),
        ),
        (
            'check = "/#x"',
            (
                'check: "/#x" is not a valid path; use at most 1000 printable ASCII '
                "characters, others as %20, and no #"
            ),
        ),
        ('on_down = "drop"', 'on_down: "drop" is not valid; use one of "next" or "reset"'),
        ('uplinks = ["isp-c"]', 'uplinks[0]: "isp-c" is not an uplink; did you mean isp-b?'),
        ('uplinks = ["zzz"]', 'uplinks[0]: "zzz" is not an uplink; use isp-a or isp-b'),
        ("uplinks = []", "uplinks: no uplink; name one"),
        ('uplinks = ["isp-a", "isp-a"]', 'uplinks: "isp-a" is listed more than once; list it once'),
        ("listens = 1", "listens: unknown key; did you mean listen?"),
    ],
)
def test_forward_keys(line: str, message: str) -> None:
    reports(f"{FORWARD}{line}", 4, f"forward[0].{message}")


def test_a_forward_needs_ports_and_servers() -> None:
    assert errors("[[forward]]") == [
        (
            f"f.toml:{LINES + 1}: forward[0].listen: missing; name the ports that clients "
            f"connect to, as "
            'in listen = "tcp:443"'
        ),
        (f'f.toml:{LINES + 1}: forward[0].to: missing; name the servers, as in to = ["10.0.0.10"]'),
    ]
    reports("[forward]\nto = 1", 1, "forward: not a list of tables; write [[forward]] for each")


def test_two_forwards_on_one_port() -> None:
    """The message names the line of each, even if a table between them is invalid."""
    between = '[[forward]]\nlisten = "x"\nto = "10.0.0.1"\n'
    problems = errors(
        f'{FORWARD}{between}[[forward]]\nlisten = ["udp:1", "tcp:400-500"]\nto="10.0.0.2"'
    )
    assert problems[1:] == [
        (
            f"f.toml:{LINES + 8}: forward[2].listen[1]: tcp:400-500 overlaps tcp:443 in line "
            f"{LINES + 2}; remove one of them, or give each its own uplinks"
        )
    ]


def test_a_range_keeps_its_ports() -> None:
    reports(
        '[[forward]]\nlisten = ["tcp:1", "tcp:80-90"]\nto = ["10.0.0.1",\n"[fd00::1]:80"]',
        4,
        'forward[0].to[1]: "[fd00::1]:80" has a port, but listen has the range tcp:80-90; leave '
        "the port out: a range in listen keeps the client's port",
    )


@pytest.mark.parametrize("own", ["203.0.113.10", "2001:db8:a::10", "198.51.100.77"])
def test_the_host_itself_is_no_server(own: str) -> None:
    problems = errors(FORWARD.replace("10.0.0.10", own))
    uplink = "isp-b" if own == "198.51.100.77" else "isp-a"
    assert problems == [
        (
            f'f.toml:{LINES + 3}: forward[0].to: "{own}" is an address of uplink.{uplink}; use a '
            f"server behind the host: the host's own services need no [[forward]]"
        )
    ]


def test_the_port_of_the_embedded_server() -> None:
    dns = '[dns.server]\nzones = ["example.net"]\n[[forward]]\nlisten = ["tcp:1", "udp:50-60"]\n'
    reports(
        f'{dns}to = "10.0.0.1"',
        4,
        "forward[0].listen[1]: port 53 is used by [dns.server]; use another port, or change "
        "dns.server.port",
    )


@pytest.mark.parametrize(
    "what", [FORWARD, '[outgoing]\nmasquerade = ["lan0"]\n', FORWARD.replace("tcp", "x")]
)
def test_forwarded_connections_must_be_tracked(what: str) -> None:
    problems = errors(f'{what}[host]\nforwarded = "off"')
    assert problems[-1].endswith(
        'host.forwarded: "off" conflicts with [[forward]] and masquerade, whose replies are '
        "tracked; remove one or the other"
    )


# --- outgoing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('mode = "robin"', 'mode: "robin" is not valid; use one of "failover" or "balance"'),
        ("sticky = 1", "sticky: not true or false; write one of them without quotes"),
        ('udp = "true"', "udp: not true or false; write one of them without quotes"),
        ('masquerade = "lan0"', 'masquerade: not a list; write it in brackets: ["…"]'),
        (
            'masquerade = ["lan0", "a/b"]',
            (
                'masquerade[1]: "a/b" is not an interface name; use a name that `ip link` shows, '
                "at most "
                "15 characters"
            ),
        ),
        (
            'masquerade = ["lan0", "lan0"]',
            'masquerade: "lan0" is listed more than once; list it once',
        ),
        (
            'masquerade = ["lan0", "wan1"]',
            (
                'masquerade[1]: "wan1" is the interface of uplink.isp-b; use the interfaces of '
                "the LANs behind the host"
            ),
        ),
        (
            "rule = {}",
            "rule: not a list of tables; write [[outgoing.rule]] for each",
        ),
        ("mod = 1", "mod: unknown key; did you mean mode?"),
    ],
)
def test_outgoing_keys(line: str, message: str) -> None:
    reports(f"[outgoing]\n{line}", 2, f"outgoing.{message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('to = ["x"]', 'to[0]: "x" is not a prefix; write it like "192.0.2.0/24"'),
        (
            'to = ["192.0.2.7/24"]',
            'to[0]: "192.0.2.7/24" has host bits set; write "192.0.2.0/24"',
        ),
        (
            'to = ["224.0.0.0/4"]',
            (
                'to[0]: "224.0.0.0/4" can\'t be reached through an uplink; write it like '
                '"192.0.2.0/24"'
            ),
        ),
        (
            'to = ["::ffff:192.0.2.0/120"]',
            (
                'to[0]: "::ffff:192.0.2.0/120" can\'t be reached through an uplink; write it like '
                '"192.0.2.0/24"'
            ),
        ),
        ('transport = "icmp"', 'transport: "icmp" is not valid; use one of "tcp" or "udp"'),
        ("ports = [25]", 'ports: no transport for them; add transport = "tcp" or "udp"'),
        ("ports = [0]", 'ports[0]: "0": 0 is not a port; use 1 to 65534'),
        ('ports = ["1-65535"]', 'ports[0]: "1-65535": 65535 is not a port; use 1 to 65534'),
        ("ports = [true]", 'ports[0]: true is not a port; write it like 25 or "8000-8099"'),
        ('ports = ["9-8"]', 'ports[0]: "9-8" ends before it begins; write "8-9"'),
        ("users = [-1]", "users[0]: -1 is not a user; use a uid such as 1000, or a name"),
        (
            "users = [4294967295]",
            ("users[0]: 4294967295 is not a user; use a uid such as 1000, or a name"),
        ),
        ('users = ["a b"]', 'users[0]: "a b" is not a user; use a uid such as 1000, or a name'),
        ('users = ["nemo"]', 'users[0]: "nemo" is not a user of this host; see `getent passwd`'),
        (
            'cgroups = ["a"]',
            (
                'cgroups[0]: "a" is not a control group; write it from the root, like '
                '"/system.slice/backup.service"'
            ),
        ),
        (
            'cgroups = ["/"]',
            (
                'cgroups[0]: "/" is not a control group; write it from the root, like '
                '"/system.slice/backup.service"'
            ),
        ),
        (
            'cgroups = ["/a/../b"]',
            (
                'cgroups[0]: "/a/../b" is not a control group; write it from the '
                'root, like "/system.slice/backup.service"'
            ),
        ),
        ('cgroups = ["/a", "/a"]', 'cgroups: "/a" is listed more than once; list it once'),
        (
            'users = [1]\ncgroups = ["/a"]',
            ("cgroups: can't be combined with other selectors; use a separate rule"),
        ),
        ("by = 1", "by: unknown key; use one of cgroups, ports, to, transport, users, via"),
    ],
)
def test_rule_keys(line: str, message: str) -> None:
    reports(f"{RULE}{line}", 2 + len(line.splitlines()), f"outgoing.rule[0].{message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "missing; name uplinks in the order of preference, as in"),
        ("via = []", "no uplink; name one"),
        ('via = ["isp-a", "isp-a"]', '"isp-a" is listed more than once; list it once'),
    ],
)
def test_via(line: str, message: str) -> None:
    [problem] = errors(f"[[outgoing.rule]]\nusers = [1]\n{line}")
    assert f"outgoing.rule[0].via: {message}" in problem


def test_via_an_uplink_that_is_not_there() -> None:
    reports(
        f'{RULE}users = [1]\n[[outgoing.rule]]\nusers = [2]\nvia = ["isp-a",\n"isp-bb"]',
        7,
        'outgoing.rule[1].via[1]: "isp-bb" is not an uplink; did you mean isp-b?',
    )


def test_a_rule_that_matches_everything() -> None:
    reports(
        RULE,
        1,
        "outgoing.rule[0]: matches everything; add to, transport, users or cgroups, or give the "
        "uplink the lowest rank instead",
    )


def test_one_cgroup_in_two_rules() -> None:
    text = f'{RULE}cgroups = ["/a"]\n{RULE}cgroups = ["/b", "/a"]'
    reports(
        text, 6, 'outgoing.rule[1].cgroups[1]: "/a" is already in an earlier rule; keep it in one'
    )


def test_too_many_rules() -> None:
    users = ", ".join(map(str, range(500)))
    many = f'{RULE}users = [{users}]\nto = ["192.0.2.1", "192.0.2.2"]\n'
    assert len(parsed(many).outgoing.rules) == 1
    reports(
        f"{many}{RULE}users = [1]",
        5,
        "outgoing.rule[1]: 1001 policy rules so far; use at most 1000: each route lookup goes "
        "through them",
    )


# --- routed prefixes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("routed", "message"),
    [
        (
            '"2001:db8::1/56"',
            ('[0]: "2001:db8::1/56" has host bits set; write "2001:db8::/56"'),
        ),
        (
            '"::/0"',
            '[0]: "::/0" covers everything; use the prefix that the provider routes to this host',
        ),
        (
            '"fe80::/64"',
            (
                '[0]: "fe80::/64" can\'t be reached through an uplink; write it '
                'like "2001:db8:b:100::/56"'
            ),
        ),
        (
            '"2001:db8:f::/48"',
            (
                '[0]: "2001:db8:f::/48" overlaps "2001:db8:f:100::/56" of '
                "uplink.isp-c; list each prefix at the uplink whose provider "
                "routes it"
            ),
        ),
        (
            '"10.0.0.0/8", "10.1.0.0/16"',
            ('[1]: "10.1.0.0/16" and "10.0.0.0/8" overlap; keep the wider one'),
        ),
        (
            '"203.0.113.0/28"',
            (
                '[0]: "203.0.113.0/28" contains 203.0.113.10 of uplink.isp-a; list the prefixes '
                "that this provider routes to the host"
            ),
        ),
    ],
)
def test_routed(routed: str, message: str) -> None:
    other = '[uplink.isp-c]\ninterface="wan2"\nrouted = ["2001:db8:f:100::/56"]\n'
    text = f'{other}[uplink.isp-d]\ninterface="wan3"\nrouted = [{routed}]'
    reports(text, 6, f"uplink.isp-d.routed{message}")


# --- many ----------------------------------------------------------------------------------


_SPANS = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 8), st.sampled_from(["isp-a", "isp-b", ""])),
    max_size=8,
)


@given(_SPANS)
def test_an_overlap_is_found_and_nothing_else(spans: list[tuple[int, int, str]]) -> None:
    tables, overlap = "", False
    for n, (first, more, uplink) in enumerate(spans):
        on = f'uplinks = ["{uplink}"]\n' if uplink else ""
        tables += f'[[forward]]\nlisten = "tcp:{first}-{first + more}"\nto = "10.0.0.1"\n{on}'
        overlap |= any(
            first <= other + length
            and other <= first + more
            and ("" in (uplink, of_other) or uplink == of_other)
            for other, length, of_other in spans[:n]
        )
    if overlap:
        assert all(" overlaps " in problem for problem in errors(tables))
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
