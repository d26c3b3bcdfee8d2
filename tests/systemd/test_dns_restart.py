"""No query is lost while the daemon restarts, fails, or is upgraded, under a real systemd."""

from __future__ import annotations

from ifdefault import __version__
from ifdefault.lab.waiting import eventually
from tests.net.test_dns_daemon import A6, B6, DNS, A, B, addresses
from tests.net.test_dns_restart import asked
from tests.systemd.booted import Booted
from tests.systemd.conftest import Boot
from tests.systemd.package import HOME

DAEMON, SERVER = "ifdefault.service", "ifdefault-dns.service"


def has_taken_over(host: Booted) -> bool:
    """Whether the daemon says that its DNS server answers."""
    said = host.ifdefault("dns", check=False).stdout
    return "serial" in said and "pending" not in said


def upgrade(host: Booted, version: str) -> None:
    (init,) = host.path(HOME).glob("lib/*/site-packages/ifdefault/__init__.py")
    init.write_text(init.read_text().replace(__version__, version))


def test_no_query_is_lost(boot: Boot) -> None:
    host = boot(enable=[DAEMON], config=DNS)
    host.await_state(DAEMON)
    host.await_state(SERVER)
    eventually(lambda: has_taken_over(host), what="it answers")
    server = host.main_pid(SERVER)
    with asked(host.world):
        host.systemctl("restart", DAEMON)
        eventually(lambda: has_taken_over(host), what="it has been adopted")
        killed = host.main_pid(DAEMON)
        host.run(["kill", "-KILL", str(killed)])
        eventually(lambda: host.main_pid(DAEMON) not in (0, killed), what="the daemon is back")
        eventually(lambda: has_taken_over(host), what="it has been adopted again")
        assert host.main_pid(SERVER) == server
    with asked(host.world):
        upgrade(host, "99.0")
        host.systemctl("restart", DAEMON)
        eventually(lambda: not host.main_pid(SERVER), what="only the engine's own answers")
        host.systemctl("restart", DAEMON)  # which would kill it before the unit has the new one
        eventually(
            lambda: host.main_pid(SERVER) not in (0, server), what="the unit has the new one"
        )
        eventually(
            lambda: "dns_main" not in host.shell("ps -eo args"), what="none but the unit's is left"
        )
        for at in (A, B, A6, B6):  # by that one
            assert addresses(host.world, at=at) == {A, B}
    assert any("hands over to 99.0" in line for line in host.journal(DAEMON))
    host.systemctl("stop", DAEMON)
    host.await_state(SERVER, "inactive")
    host.systemctl("start", DAEMON)
    eventually(lambda: has_taken_over(host), what="it answers after a stop, too")
    host.await_state(SERVER)


def test_it_is_stopped_by_down(boot: Boot) -> None:
    """Even if nothing but the DNS server is left."""
    host = boot(enable=[DAEMON], config=DNS)
    host.await_state(SERVER)
    eventually(lambda: has_taken_over(host), what="it answers")
    host.systemctl("kill", "--kill-who=main", "-s", "KILL", DAEMON)
    host.systemctl("stop", DAEMON)
    host.systemctl("start", SERVER)
    host.ifdefault("down")
    host.await_state(SERVER, "inactive")
