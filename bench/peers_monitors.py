"""The peers of `failover`: lsm, keepalived, gdnsd and PowerDNS, each in the lab's world `two`.

Rules: each is used as on a host with two uplinks, with its defaults and with other settings, which
are named. lsm and keepalived run on the host and move its default route; gdnsd and PowerDNS run
outside, where a monitor of a name's addresses belongs (the host has our return path, so that both
addresses answer). Config, sockets and PID files are in the world's directory, and the world ends
the processes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.failover_trials import Gauge, Start
from bench.observer import Watch
from bench.subject import Subject
from ifdefault.lab import services
from ifdefault.lab.node import Node
from ifdefault.lab.world import World
from ifdefault.model.errors import HostError

FAR = ("198.18.1.10", "2001:db8:f:1::10")  # the client: beyond both providers
PROVIDER, GATEWAY, DEVICE = "isp-a", "203.0.113.1", "wan0"
OTHER_GATEWAY, OTHER_DEVICE = "198.51.100.1", "wan1"
NAME = "www.example.net"
ADDRESSES = {"isp-a": "203.0.113.10", "isp-b": "198.51.100.10"}

# The first uplink's default route; one with a higher metric remains below the other uplink's, so
# that a socket bound to the device can always send.
_BEST = f"default via {GATEWAY} dev {DEVICE} metric 50"
_WORST = f"default via {GATEWAY} dev {DEVICE} metric 200"


# --- lsm ------------------------------------------------------------------------------------

_LSM_SCRIPT = f"""\
#!/bin/sh
# $1: the new state; $2: the connection's name
[ "$2" = {PROVIDER} ] || exit 0
case $1 in
    down) ip route del {_BEST} ;;
    up) ip route replace {_BEST} ;;
esac
"""


def lsm(**settings: int) -> Start:
    """lsm pings beyond each uplink; its event script deletes and restores the default route."""

    def start(world: World) -> Sequence[Gauge]:
        home = _home(world, "lsm")
        script = _executable(home / "event", _LSM_SCRIPT)
        lines = [f"defaults {{\n  name=defaults\n  eventscript={script}\n  notifyscript=\n"]
        lines += [f"  {key}={value}\n" for key, value in settings.items()]
        lines.append("}\n")
        for name, device, far in ((PROVIDER, DEVICE, FAR[0]), ("isp-b", OTHER_DEVICE, FAR[0])):
            lines.append(f"connection {{\n  name={name}\n  checkip={far}\n  device={device}\n")
            lines.append("  status=1\n}\n")
        config = home / "lsm.conf"
        config.write_text("".join(lines), encoding="utf-8")
        world["host"].ip(f"route replace {_BEST}\n")
        _add_worst(world)
        command = ["lsm", "--no-fork", "--config", str(config), "--pidfile", str(home / "pid")]
        _run(world["host"], home, command)
        return _default_of(world)

    return start


# --- keepalived -----------------------------------------------------------------------------

_KEEPALIVED = """\
global_defs {{
  router_id host
  enable_script_security
  script_user root
}}
vrrp_script beyond {{
  script "{script}"
{settings}
}}
vrrp_instance uplink {{
  state BACKUP
  interface {device}
  virtual_router_id 51
  priority 100
{advert}
  virtual_ipaddress {{
    192.168.1.2/24 dev lan0
  }}
  virtual_routes {{
    {route}
  }}
  track_script {{
    beyond
  }}
}}
"""


def keepalived(script: str, *, advert: str = "", **settings: int) -> Start:
    """keepalived holds the default as a virtual route while it can ping beyond the uplink."""

    def start(world: World) -> Sequence[Gauge]:
        home = _home(world, "keepalived")
        config = home / "keepalived.conf"
        config.write_text(
            _KEEPALIVED.format(
                script=_executable(home / "ping", f"#!/bin/sh\n{script}"),
                settings="".join(f"  {key} {value}\n" for key, value in settings.items()),
                advert=f"  {advert}" if advert else "",
                device=DEVICE,
                route=_BEST,
            ),
            encoding="utf-8",
        )
        _add_worst(world)  # keepalived adds the other
        command = ["keepalived", "-n", "-l", "-G", "-P", "-f", str(config)]
        command += ["-p", str(home / "pid"), "-r", str(home / "vrrp.pid")]
        _run(world["host"], home, command)
        return _default_of(world)

    return start


# --- gdnsd ----------------------------------------------------------------------------------

_ZONE = """\
@ 60 SOA ns.example.net. hostmaster.example.net. ( 1 7200 1800 259200 60 )
@ 60 NS ns.example.net.
ns 60 A 127.0.0.1
"""


def gdnsd(**settings: int) -> Start:
    """gdnsd connects to port 80 of each address, and answers with those that are up."""

    def start(world: World) -> Sequence[Gauge]:
        home = _home(world, "gdnsd")
        (home / "zones").mkdir()
        (home / "run").mkdir()
        thresholds = ", ".join(f"{key} => {value}" for key, value in settings.items())
        labels = ", ".join(f"{name} => {address}" for name, address in ADDRESSES.items())
        (home / "config").write_text(
            f"""\
options => {{ listen => "127.0.0.1:5300", run_dir => {home}/run, state_dir => {home}/run }}
service_types => {{ web => {{ plugin => tcp_connect, port => 80, {thresholds} }} }}
plugins => {{ multifo => {{ www => {{ service_types => web, {labels} }} }} }}
""",
            encoding="utf-8",
        )
        (home / "zones" / "example.net").write_text(
            f"{_ZONE}www 60 DYNA multifo!www\n", encoding="utf-8"
        )
        _web_host(world)
        _run(world["client"], home, ["gdnsd", "-c", str(home), "start"])
        return _answers_of(world, 5300)

    return start


# --- PowerDNS -------------------------------------------------------------------------------


def powerdns(interval_s: int = 0, **options: int) -> Start:
    """PowerDNS connects to port 80 of each address, and answers with those that are up."""

    def start(world: World) -> Sequence[Gauge]:
        home = _home(world, "pdns")
        addresses = ", ".join(f"'{address}'" for address in ADDRESSES.values())
        extra = "".join(f", {key}={value}" for key, value in options.items())
        call = f"ifportup(80, {{{addresses}}}, {{selector='all'{extra}}})"
        zone = home / "example.net"
        zone.write_text(
            f'$ORIGIN example.net.\n{_ZONE}www 60 LUA A "{call}"\n',
            encoding="utf-8",
        )
        (home / "named.conf").write_text(
            f'zone "example.net" {{ type master; file "{zone}"; }};\n', encoding="utf-8"
        )
        settings: dict[str, object] = {
            "launch": "bind",
            "bind-config": home / "named.conf",
            "enable-lua-records": "yes",
            "local-address": "127.0.0.1",
            "local-port": 5301,
            "socket-dir": home,
        }
        settings["security-poll-suffix"] = ""  # otherwise it queries the Internet
        if interval_s:
            settings["lua-health-checks-interval"] = interval_s
        lines = "".join(f"{key}={value}\n" for key, value in settings.items())
        (home / "pdns.conf").write_text(lines, encoding="utf-8")
        _web_host(world)
        command = ["pdns_server", f"--config-dir={home}", "--daemon=no", "--guardian=no"]
        _run(world["client"], home, command)
        return _answers_of(world, 5301)

    return start


# --- what they share ------------------------------------------------------------------------


def _home(world: World, name: str) -> Path:
    home = world.dir / name
    home.mkdir()
    return home


def _executable(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o700)
    return path


def _run(node: Node, home: Path, command: list[str]) -> subprocess.Popen[str]:
    if not services.installed(command[0]):
        raise HostError(f"{command[0]} isn't installed: ./dev setup bench")
    with (home / "log").open("w") as log:
        return node.popen(command, stdout=log, stderr=log)


def _web_host(world: World) -> None:
    """A web server that answers over both uplinks."""
    Subject(world).apply()
    services.nginx(world["host"])


def _add_worst(world: World) -> None:
    world["host"].ip(f"route del default via {GATEWAY} metric 0\nroute add {_WORST}\n", "-4")


def _default_of(world: World) -> Sequence[Gauge]:
    watch = Watch(world["host"], "route", FAR[0])
    return (Gauge(watch, FAR[0], DEVICE),)


def _answers_of(world: World, port: int) -> Sequence[Gauge]:
    watch = Watch(world["client"], "dns", "127.0.0.1", str(port), NAME)
    return (Gauge(watch, NAME, " ".join(sorted(ADDRESSES.values()))),)
