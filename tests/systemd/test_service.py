"""ifdefault.service: what systemd does to the daemon, and what the unit's hardening leaves it.

client ── core ─┬─ isp-a ── wan0 ┬─ host, with a systemd of its own
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import json
import tarfile

import pytest

from ifdefault.lab import services
from ifdefault.lab.waiting import eventually
from tests.net import answers
from tests.net.test_dns_daemon import DNS, A, B, addresses, answered
from tests.net.watched import FAR, await_states, leaves_by, ours
from tests.systemd.booted import CONFIG, PACKAGING, UNITS, Booted
from tests.systemd.conftest import Boot

DAEMON = "ifdefault.service"
BY_A, BY_B = {"203.0.113.10", "2001:db8:a::10"}, {"198.51.100.10", "2001:db8:b::10"}
DROP_IN = f"{UNITS}/{DAEMON}.d"
BALANCE = {f"{DROP_IN}/balance.conf": (PACKAGING / "balance.conf").read_text()}
_CONNECT = """
import socket, sys
for address in sys.argv[1:]:
    print(socket.create_connection((address, 7000)).getsockname()[0])
"""


def start(boot: Boot, files: dict[str, str] | None = None, config: str = "") -> Booted:
    """A host whose daemon has found both uplinks to work."""
    host = boot(enable=[DAEMON], files=files or {}, config=config)
    host.await_state(DAEMON)
    await_states(host.world, ["up"])
    return host


def await_restart(host: Booted, was: int) -> None:
    """Until systemd has started it again, and it has found both uplinks to work."""
    eventually(lambda: host.main_pid(DAEMON) not in (0, was), what="another process")
    host.await_state(DAEMON)
    await_states(host.world, ["up"])


def test_it_tells_when_it_is_ready(boot: Boot) -> None:
    """What is ordered after the daemon finds the uplinks routed."""
    after = f"""\
[Unit]
After={DAEMON}
[Service]
Type=oneshot
ExecStart=sh -c "ip rule >/rules"
[Install]
WantedBy=multi-user.target
"""
    host = boot(enable=[DAEMON, "after.service"], files={f"{UNITS}/after.service": after})
    assert "lookup 1002 proto 171" in host.shell("cat /rules")


def test_one_that_hangs_is_restarted(boot: Boot) -> None:
    short = "[Service]\nWatchdogSec=2\n"
    host = start(boot, {f"{DROP_IN}/watchdog.conf": short})
    rules = ours(host.world)
    was = host.main_pid(DAEMON)
    host.run(["kill", "-STOP", str(was)])
    await_restart(host, was)
    assert ours(host.world) == rules
    assert any("watchdog" in line.lower() for line in host.journal(DAEMON))
    answers.assert_answered(host.world)


@pytest.mark.parametrize("signal", ["KILL", "SEGV"])
def test_one_that_dies_is_restarted(boot: Boot, signal: str) -> None:
    host = start(boot)
    rules = ours(host.world)
    was = host.main_pid(DAEMON)
    host.systemctl("kill", "--kill-who=main", f"--signal={signal}", DAEMON)
    await_restart(host, was)
    assert ours(host.world) == rules
    assert host.show(DAEMON, "NRestarts") == {"NRestarts": "1"}


def test_it_leaves_the_kernel_as_it_is(boot: Boot) -> None:
    """When it is stopped, and when it is restarted."""
    host = start(boot)
    before = answers.kernel_state(host.world["host"])
    host.systemctl("stop", DAEMON)
    assert host.show(DAEMON, "ActiveState", "Result")["Result"] == "success"
    assert answers.kernel_state(host.world["host"]) == before
    answers.assert_answered(host.world)
    left = host.run(["pgrep", "-af", "ifdefault"], check=False).stdout.splitlines()
    assert all("ifdefault monitor" in line for line in left), left
    host.systemctl("start", DAEMON)
    host.systemctl("restart", DAEMON)
    await_states(host.world, ["up"])
    assert answers.kernel_state(host.world["host"]) == before
    assert not [line for line in host.journal(DAEMON) if "repaired" in line]


def test_a_changed_config_is_loaded_or_rejected(boot: Boot) -> None:
    host = start(boot)
    was = host.main_pid(DAEMON)
    good = host.path(CONFIG).read_text()
    host.path(CONFIG).write_text(good.replace("[uplink.isp-b]", "rank = 1\n[uplink.isp-b]"))
    host.systemctl("reload", DAEMON)
    assert leaves_by(host.world) == "wan1"

    host.path(CONFIG).write_text("[uplink.isp-a]\ninterfaces = 3\n")
    assert host.systemctl("reload", DAEMON, check=False).returncode
    said = host.journal(DAEMON)
    assert any("ifdefault.toml:2" in line and "interfaces" in line for line in said), said
    assert host.state(DAEMON) == "active"
    assert host.main_pid(DAEMON) == was
    assert leaves_by(host.world) == "wan1"


def test_an_invalid_config_is_said_once(boot: Boot) -> None:
    """A restart wouldn't help: it fails, and stays so."""
    host = boot(enable=[DAEMON], files={CONFIG: "[uplink.isp-a]\ninterfaces = 3\n"})
    host.await_state(DAEMON, "failed")
    properties = host.show(DAEMON, "Result", "ExecMainStatus", "NRestarts")
    assert properties == {"Result": "exit-code", "ExecMainStatus": "2", "NRestarts": "0"}
    assert len([line for line in host.journal(DAEMON) if "ifdefault.toml:2" in line]) == 1


def test_what_it_logs_has_a_priority_and_is_reported(boot: Boot) -> None:
    secret = "[Service]\nEnvironment=SMTP_PASSWORD=planted\n"
    host = start(boot, {f"{DROP_IN}/secret.conf": secret})
    host.world["host"].ip("link set wan1 down\n")
    await_states(host.world, ["down"], "isp-b")
    rows = host.run(["journalctl", "-q", "-o", "json", "-u", DAEMON, "-p", "warning"]).stdout
    texts = [json.loads(row)["MESSAGE"] for row in rows.splitlines()]
    assert any("isp-b" in text and "-> down" in text for text in texts), texts
    host.ifdefault("report", "--recording", "2s", "-o", "/root/r.tar.gz")
    with tarfile.open(host.path("root/r.tar.gz")) as tar:
        files = {m.name: tar.extractfile(m) for m in tar.getmembers()}
        found = {name: file.read().decode() for name, file in files.items() if file}
    assert not [name for name, text in found.items() if "planted" in text]
    assert "isp-b IPv4: up -> down" in found["r/systemd/journal.txt"]
    assert f"Id={DAEMON}" in found["r/systemd/units.txt"]
    assert "SMTP_PASSWORD=REDACTED" in found["r/systemd/unit-files.txt"]
    assert found["r/record.jsonl"].count("\n") > 3


HOOK = """\
#!/bin/sh
{ id -un; echo "$IFDEFAULT_UPLINK $IFDEFAULT_STATE"; } >>/srv/uplinks/log
echo no >/srv/other || echo "can't write there" >&2
"""


def test_hooks(boot: Boot) -> None:
    """As a user of their own, who writes only where a drop-in allows it."""
    writable = "[Service]\nReadWritePaths=/srv/uplinks\n"
    prepare = "d /srv/uplinks 0755 ifdefault-hook ifdefault-hook\nd /srv 0777\n"
    files = {
        f"{DROP_IN}/hooks.conf": writable,
        "etc/tmpfiles.d/uplinks.conf": prepare,
        "usr/local/sbin/on-down": HOOK,
    }
    host = start(boot, files, '[hooks]\ndown = "/usr/local/sbin/on-down"\n')
    host.world["host"].ip("link set wan1 down\n")
    log = host.path("srv/uplinks/log")
    eventually(lambda: log.exists() and log.read_text().count("\n") == 4, what="two have run")
    assert sorted(log.read_text().splitlines()) == ["ifdefault-hook"] * 2 + ["isp-b down"] * 2
    assert not host.path("srv/other").exists()


def test_names(boot: Boot) -> None:
    """It answers on port 53, by processes without any right."""
    host = start(boot, config=DNS)
    world = host.world
    eventually(lambda: answered(world), what="the server answers")
    assert addresses(world, at=A) == addresses(world, at=B) == {A, B}
    script = "for pid in $(pgrep -u ifdefault); do grep -H CapEff /proc/$pid/status; done"
    rights = [line.split()[-1] for line in host.shell(script).splitlines()]
    assert rights
    assert set(rights) == {"0" * 16}


def test_without_the_drop_in_commands_have_no_uplink(boot: Boot) -> None:
    host = start(boot)
    done = host.in_unit("ifdefault", "exec", "isp-b", "--", "true", check=False)
    assert done.returncode
    assert "balance.conf" in done.stderr or "CAP_" in done.stderr or "bpf" in done.stderr, done
    assert host.state(DAEMON) == "active"


def connected_from(host: Booted, *command: str, count: int = 1) -> set[str]:
    """The host's addresses of connections to the client that a command makes, as in a login."""
    script = [*command, "python3", "-c", _CONNECT, *list(FAR.values()) * count]
    return set(host.in_unit(*script).stdout.split())


def test_a_command_keeps_to_an_uplink(boot: Boot) -> None:
    """`exec`, by the drop-in that it needs, after a restart too."""
    host = start(boot, BALANCE)
    services.builtin(host.world["client"])
    for _ in range(2):
        assert connected_from(host) == BY_A
        assert connected_from(host, "ifdefault", "exec", "isp-b", "--") == BY_B
        host.systemctl("restart", DAEMON)
        await_states(host.world, ["up"])


def test_balance(boot: Boot) -> None:
    """Both uplinks get connections of the host's own, while it restarts too."""
    host = start(boot, BALANCE, '[outgoing]\nmode = "balance"\n')
    services.builtin(host.world["client"])
    assert connected_from(host, count=16) == BY_A | BY_B
    host.systemctl("stop", DAEMON)
    assert connected_from(host, count=16) == BY_A | BY_B
    host.systemctl("start", DAEMON)
    assert connected_from(host, count=16) == BY_A | BY_B
    assert not [line for line in host.journal(DAEMON) if "repaired" in line]


def test_its_processes_are_confined(boot: Boot) -> None:
    """The unit permits what the frontend and the DNS server confine themselves with."""
    host = start(boot, config=DNS)
    eventually(lambda: answered(host.world), what="it answers")
    engine = _status(host, host.main_pid(DAEMON))
    frontend = _status(host, int(host.shell("pgrep -f [i]fdefault-frontend")))
    server = _status(host, host.main_pid("ifdefault-dns.service"))
    assert frontend["Seccomp_filters"] > engine["Seccomp_filters"]
    assert {status["NoNewPrivs"] for status in (engine, frontend, server)} == {"1"}
    assert [line for line in host.journal() if "runs without" in line] == []
    assert host.show(DAEMON, "OOMScoreAdjust")["OOMScoreAdjust"] == "-500"
    assert host.shell("cat /proc/$(pgrep -f [i]fdefault-frontend)/oom_score_adj") == "500\n"


def _status(host: Booted, pid: int) -> dict[str, str]:
    rows = host.shell(f"cat /proc/{pid}/status").splitlines()
    return {key: value.strip() for key, _, value in (row.partition(":") for row in rows)}
