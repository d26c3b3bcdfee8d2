"""`ifdefault dns check` against real servers: BIND as the root, the parent and a zone of others.

                ┌─ isp-a ── wan0 ┐
client ── core ─┤                ├ host: www.example, by the daemon
                └─ isp-b ── wan1 ┘
core: "." and "example" (BIND)    client: "dyn.example" (BIND), where others publish for the host
"""

from __future__ import annotations

import json
import shlex
import shutil
import socket
from collections.abc import Iterable
from typing import Any

from ifdefault.lab import dns, faults, services
from ifdefault.lab.topology import DelegatedZone
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import LabWorld
from tests.net.watched import await_states, standing, start

A, A6, B, B6 = "203.0.113.10", "2001:db8:a::10", "198.51.100.10", "2001:db8:b::10"
ZONE, NS_A, NS_B = "www.example", "ns-isp-a.www.example", "ns-isp-b.www.example"
OURS = """
[[dns.name]]
name = "www.example"

[dns.server]
zones = ["www.example"]
"""
THEIRS = """
[[dns.name]]
name = "www.dyn.example"

[[dns.update]]
zone = "dyn.example"
servers = ["198.18.1.10"]
"""
CHILD = ("198.18.1.10", "2001:db8:f:1::10")
DYN = DelegatedZone("dyn.example", (("ns.dyn.example", CHILD),))


def check(world: World, *more: str, node: str = "host") -> tuple[int, dict[str, Any]]:
    done = world.ifdefault("dns", "check", "--root", dns.ROOT[0], "--json", *more, node=node)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def told(world: World, *more: str, node: str = "host") -> list[str]:
    """The problems, as where, what and remedy; the exit status tells whether there are errors."""
    status, found = check(world, *more, node=node)
    assert status == int(any(not each["warning"] for each in found["problems"])), found["problems"]
    return [f"{each['where']}: {each['what']}; {each['remedy']}" for each in found["problems"]]


def serve(world: World, config: str = OURS) -> None:
    """The daemon serves our zone, and its state is reported."""
    start(world, config)

    def current() -> bool:
        publishers = standing(world).dns.publishers
        return bool(publishers) and all(each.state == "current" for each in publishers)

    eventually(current, what="the zone is served")


def parent(world: World, *nameservers: tuple[str, tuple[str, ...]], zone: str = ZONE) -> None:
    """Set a zone's delegation at the parent; without name servers; remove it."""
    world.end("named-core")
    shutil.rmtree(world.dir / "named-core", ignore_errors=True)
    given = [DelegatedZone(zone, nameservers)] if nameservers else []
    zones = dns.render_zones([*given, DelegatedZone("other.example", ())], [], 5)
    child = dns.named(world["core"], zones)
    world.remember(child, "named-core")


# --- the embedded server ------------------------------------------------------------------


def test_all_is_well(lab_world: LabWorld) -> None:
    world = lab_world("two")
    parent(world, (NS_A, (A, A6)), (NS_B, (B, B6)))
    serve(world)
    done = world.ifdefault("dns", "check", "--root", dns.ROOT[1])
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    path = [line.split() for line in done.stdout.splitlines()]
    assert path[0] == [ZONE]
    assert [words[:2] for words in path[1:3]] == [[".", dns.ROOT[1]], ["example", "parent.lab"]]
    servers = [line for line in done.stdout.splitlines() if line.startswith("  at ")]
    assert len(servers) == 4
    assert all(line.count("UDP") == line.count("TCP") == 1 for line in servers)
    # what it says is to be at the parent is what was there
    lines = world.ifdefault("dns", "delegation", check=True).stdout.splitlines()
    records = [line.split() for line in lines if line[0] != ";"]
    assert [(owner, kind, value) for owner, _, _, kind, value in records] == [
        (f"{ZONE}.", "NS", f"{NS_A}."), (f"{ZONE}.", "NS", f"{NS_B}."),
        (f"{NS_A}.", "A", A), (f"{NS_A}.", "AAAA", A6),
        (f"{NS_B}.", "A", B), (f"{NS_B}.", "AAAA", B6),
    ]  # fmt: skip


def test_it_follows_what_the_daemon_publishes(lab_world: LabWorld) -> None:
    world = lab_world("two")
    parent(world, (NS_A, (A, A6)), (NS_B, (B, B6)))
    serve(world)
    both = world.ifdefault("dns").stdout.splitlines()
    assert both[1].split()[:3] == [ZONE, "rotate", "30"]
    assert both[1].endswith(f"isp-a {A} {A6}")
    assert both[2].strip() == f"isp-b {B} {B6}"

    with faults.injected(world, "blackhole", "isp-a"):
        await_states(world, ["down"], "isp-a")
        eventually(lambda: told(world) == [], what="isp-a's addresses are gone")
        _, found = check(world)
        assert {step["uplink"] for step in found["zones"][0]["steps"]} == {"isp-b", ""}
        (line,) = (line for line in world.ifdefault("status").stdout.splitlines() if ZONE in line)
        assert line.endswith(f"isp-b {B} {B6}")
        assert "isp-a" not in line


def test_what_the_parent_gets_wrong(lab_world: LabWorld) -> None:
    world = lab_world("two")
    serve(world)
    parent(world)
    (missing,) = told(world)
    assert missing.startswith(f"{ZONE}: example doesn't delegate it (no such name); add there: ")
    assert f"{ZONE}. NS {NS_B}.; {NS_A}. A {A}; {NS_A}. AAAA {A6}; " in missing
    parent(world, (NS_A, (A, A6)))
    assert told(world) == [
        (
            f"{ZONE}: example doesn't name {NS_B} among its name servers; "
            f"add there: {ZONE}. NS {NS_B}.; {NS_B}. A {B}; {NS_B}. AAAA {B6}"
        ),
        (
            f"{ZONE}: all its name servers are on isp-a, so the zone fails with that uplink; "
            "add a name server on another uplink, or elsewhere"
        ),
    ]
    parent(world, (NS_A, (A,)), (NS_B, (A, A6)))
    glue = [line for line in told(world) if "gives" in line]
    assert glue == [
        f"{ZONE}: example gives {A} for {NS_A}, which is {A6}, {A}; add there: {NS_A}. AAAA {A6}",
        (
            f"{ZONE}: example gives {A6}, {A} for {NS_B}, which is {B}, {B6}; "
            f"remove there: {NS_B}. AAAA {A6}; {NS_B}. A {A}; "
            f"add there: {NS_B}. A {B}; {NS_B}. AAAA {B6}"
        ),
    ]


_STALE, _NEW = ("198.18.0.82", "2001:db8:f::82"), ("198.18.0.83", "2001:db8:f::83")
_PARENTS = """\
options {{
  directory "{home}";
  pid-file none;
  session-keyfile "{home}/session.key";
  managed-keys-directory "{home}";
  listen-on {{ {root}; {stale[0]}; {new[0]}; }};
  listen-on-v6 {{ {stale[1]}; {new[1]}; }};
  recursion no;
  dnssec-validation no;
  notify no;
}};
controls {{ }};
view root {{ match-destinations {{ {root}; }}; zone "." {{ type primary; file "root"; }}; }};
view stale {{
  match-destinations {{ {stale[0]}; {stale[1]}; }};
  zone "example" {{ type primary; file "stale"; }};
}};
view new {{
  match-destinations {{ {new[0]}; {new[1]}; }};
  zone "example" {{ type primary; file "new"; }};
}};
"""


def test_a_parent_with_a_stale_server(lab_world: LabWorld) -> None:
    """The parent's first server doesn't know the zone; whichever is asked first, that is said."""
    world = lab_world("two")
    core, home = world["core"], world.dir / "parents"
    home.mkdir()
    for family, prefix, addresses in ((4, 16, (_STALE[0], _NEW[0])), (6, 48, (_STALE[1], _NEW[1]))):
        nodad = " nodad" if family == 6 else ""
        core.ip("".join(f"addr add {a}/{prefix} dev net0{nodad}\n" for a in addresses))
    soa = "@ 60 SOA a. b. 1 7200 1800 259200 60\n@ 60 NS a.lab.\n@ 60 NS z.lab.\n"
    glue = "".join(
        f"{host} 60 {'AAAA' if ':' in address else 'A'} {address}\n"
        for host, pair in (("a.lab.", _STALE), ("z.lab.", _NEW))
        for address in pair
    )
    (home / "root").write_text(f"{soa}example. 60 NS a.lab.\nexample. 60 NS z.lab.\n{glue}")
    serve(world)
    delegation = world.ifdefault("dns", "delegation", check=True).stdout
    (home / "stale").write_text(soa)
    (home / "new").write_text(soa + delegation)
    config = home / "named.conf"
    config.write_text(_PARENTS.format(home=home, root=dns.ROOT[0], stale=_STALE, new=_NEW))
    world.end("named-core")
    process = services.start(core, "named", ["named", "-g", "-n", "1", "-c", str(config)])
    world.remember(process, "named-core")
    services.answering(core, "named", process, socket.SOCK_DGRAM, 53, _NEW[1])
    servers = f"a.lab ({_STALE[0]}), a.lab ({_STALE[1]})"
    assert told(world) == [
        (
            f"{ZONE}: example at {servers} doesn't delegate it (no such name); make it transfer "
            "the zone again: the other servers of example are right"
        )
    ]
    lines = world.ifdefault("dns", "check", "--root", dns.ROOT[0]).stdout.splitlines()
    parents = [line.split() for line in lines if line.startswith("  of ")]
    assert {words[2].strip("()") for words in parents} == {*_STALE, *_NEW}


def test_a_secondary_that_is_behind(lab_world: LabWorld) -> None:
    world = lab_world("two")
    parent(world, (NS_A, (A, A6)), (NS_B, (B, B6)), ("ns.other.example", CHILD))
    child(world, [], zone=ZONE)
    serve(world, OURS + 'nameservers = ["ns.other.example"]\n')
    stale = [line for line in told(world) if "is stale: its serial 1 is behind " in line]
    assert [line.split(": ")[0] for line in stale] == [
        f"{ZONE} at ns.other.example ({address})" for address in CHILD
    ]


def test_without_the_daemon_it_is_named(lab_world: LabWorld) -> None:
    world = lab_world("two")
    answers.configure(world, OURS)
    world.ifdefault("apply", check=True)
    parent(world, (NS_A, (A, A6)), (NS_B, (B, B6)))
    found = told(world)
    assert len(found) == 4
    refused = "port 53 doesn't answer by UDP or TCP (connection refused); start the daemon"
    assert all(refused in each for each in found)


def test_a_port_that_the_firewall_closes(lab_world: LabWorld) -> None:
    """The host isn't filtered on its way to itself, and reads the rules; others get no answer."""
    world = lab_world("two")
    parent(world, (NS_A, (A, A6)), (NS_B, (B, B6)))
    serve(world)
    assert told(world) == told(world, node="client") == []
    closed = 'iifname "wan1" meta l4proto { tcp, udp } th dport 53 drop;'
    chain = "type filter hook input priority 0; policy accept;"
    world["host"].nft(f"table inet fw {{ chain in {{ {chain} {closed} }}\n}}")
    expected = (
        f"nft inet fw in, handle 3: drops packets to UDP and TCP port 53 of {B}, {B6}; open it to "
        "clients: `nft insert rule inet fw in meta l4proto { tcp, udp } th dport 53 accept`"
    )
    assert told(world) == [expected]
    assert f"warning: {expected}" in world.ifdefault("check").stderr.splitlines()
    remedy = "open it in the firewall there, or start the daemon: `ifdefault run`"
    assert told(world, node="client") == [
        f"{ZONE} at {NS_B} ({address}): port 53 doesn't answer by UDP or TCP (no answer); {remedy}"
        for address in (B, B6)
    ]
    world["host"].run(shlex.split(expected.split("`")[1]))
    assert told(world) == told(world, node="client") == []


# --- a zone of others ---------------------------------------------------------------------


_CHILD = """\
options {{
  directory "{home}";
  pid-file none;
  session-keyfile "{home}/session.key";
  managed-keys-directory "{home}";
  listen-on {{ 198.18.1.10; }};
  listen-on-v6 {{ 2001:db8:f:1::10; }};
  recursion no;
  dnssec-validation no;
  notify no;
}};
controls {{ }};
zone "{zone}" {{ type primary; file "zone"; }};
"""
_ZONE = """\
{zone}. 3600 SOA ns.{zone}. hostmaster.{zone}. 1 7200 1800 259200 60
{zone}. 3600 NS ns.{zone}.
ns 3600 A 198.18.1.10
ns 3600 AAAA 2001:db8:f:1::10
"""


def child(world: World, records: Iterable[str], zone: str = "dyn.example") -> None:
    """Let BIND serve a zone on the client."""
    world.end("child")
    node = world["client"]
    home = world.dir / "child"
    home.mkdir(exist_ok=True)
    (home / "zone").write_text("\n".join([_ZONE.format(zone=zone), *records, ""]))
    config = home / "named.conf"
    config.write_text(_CHILD.format(home=home, zone=zone))
    process = services.start(node, "child", ["named", "-g", "-n", "1", "-c", str(config)])
    world.remember(process, "child")
    services.answering(node, "child", process, socket.SOCK_STREAM, 53)


def publish(*addresses: str, ttl: int = 30) -> list[str]:
    return [f"www {ttl} {'AAAA' if ':' in each else 'A'} {each}" for each in addresses]


def test_a_zone_of_others(lab_world: LabWorld) -> None:
    world = lab_world("two")
    answers.configure(world, THEIRS)
    world.ifdefault("apply", check=True)
    parent(world, *DYN.nameservers, zone=DYN.zone)
    child(world, publish(A, B, A6, B6))
    assert told(world) == []
    _, found = check(world)
    asked = {
        (each["uplink"], each["tcp"])
        for each in found["zones"][0]["asked"]
        if each["address"] == CHILD[0] and each["type"] == "SOA"
    }
    assert asked == {(uplink, tcp) for uplink in ("isp-a", "isp-b") for tcp in (False, True)}

    child(world, publish(A, B, A6, B6, "192.0.2.7", ttl=300))
    assert told(world) == [
        (
            "www.dyn.example: also resolves to 192.0.2.7, which no uplink of this host has; remove "
            "that, unless another host shares the name"
        ),
        (
            "www.dyn.example: has a TTL of 300 s instead of 30 s; an uplink that is down "
            "stays published that long; make the server keep our TTL"
        ),
    ]
    child(world, [])
    assert told(world) == [
        "www.dyn.example: no such name; the daemon publishes it: see `ifdefault dns`"
    ]
    child(world, publish(A), zone="elsewhere.example")
    lame = told(world)
    assert len(lame) == 2
    assert all("is lame: it answers REFUSED; make it serve the zone" in each for each in lame)


def test_what_lies_between(lab_world: LabWorld) -> None:
    """A dead uplink is named, and so is a server that one kind of packet doesn't reach."""
    world = lab_world("two")
    answers.configure(world, THEIRS)
    world.ifdefault("apply", check=True)
    parent(world, *DYN.nameservers, zone=DYN.zone)
    child(world, publish(A, B, A6, B6))
    with faults.injected(world, "blackhole", "isp-b"):
        dead = told(world)
        assert len(dead) == 2
        assert all(
            "can't be reached over isp-b (no answer); check for a filter" in each for each in dead
        )
    with faults.injected(world, "blackhole", "isp-a"):  # over which it asks first
        assert len(told(world)) == 2
    world["client"].nft(
        "table inet deaf { chain in { type filter hook input priority 0; tcp dport 53 drop; }; }"
    )
    deaf = told(world)
    assert len(deaf) == 2
    assert all(
        "answers by UDP, but not by TCP over isp-a, isp-b; open TCP port 53; " in each
        for each in deaf
    )


def test_names_that_lead_here_or_not(lab_world: LabWorld) -> None:
    world = lab_world("two")
    answers.configure(world, THEIRS)
    world.ifdefault("apply", check=True)
    parent(world, *DYN.nameservers, zone=DYN.zone)
    child(
        world,
        [
            *publish(A, B, A6, B6),
            "shop 86400 CNAME www",
            f"old 300 A {A}",
            "bad 300 A 192.0.2.7",
        ],
    )
    assert told(world, "www.dyn.example") == []
    assert told(world, "shop.dyn.example", "old.dyn.example", "bad.dyn.example") == [
        (
            "shop.dyn.example: its CNAME to www.dyn.example has a TTL of 86400 s; lower it: "
            "resolvers cache it that long"
        ),
        (
            f"old.dyn.example: has the fixed addresses {A}, even of uplinks that are down; "
            "make it a CNAME to www.dyn.example"
        ),
        (
            "bad.dyn.example: resolves to 192.0.2.7, which no uplink has; "
            "make it a CNAME to www.dyn.example"
        ),
    ]
