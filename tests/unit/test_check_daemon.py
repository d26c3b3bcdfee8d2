"""What `check` finds missing on the host for the daemon."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from ifdefault.host import check_daemon
from ifdefault.host.check_daemon import find_problems
from ifdefault.model.config import (
    APPRISE_MISSING,
    APPRISE_REMEDY,
    Config,
    DaemonConfig,
    Family,
    HealthConfig,
    HookConfig,
    NotifyConfig,
    Probe,
    UplinkConfig,
)
from ifdefault.model.kernel import Uplink


def problems_of(config: Config, *families: Family) -> list[str]:
    addresses: dict[Family, str] = {4: "203.0.113.10", 6: "2001:db8:a::10"}
    sources = tuple((family, addresses[family]) for family in families)
    uplink = Uplink("a", 1, "wan0", 1001, 0, 0, 0, sources=sources)
    problems = list(find_problems(config, (uplink,)))
    assert all(problem.warning for problem in problems)
    return [str(problem) for problem in problems]


PLAIN = Config((UplinkConfig("a", "wan0"),))


def probing(probes: tuple[Probe, ...]) -> Config:
    return Config((UplinkConfig("a", "wan0", probes=probes),))


def test_defaults_have_no_problem() -> None:
    assert problems_of(PLAIN, 4, 6) == []


def test_users(folder: Path) -> None:
    hook = folder / "hook"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    absent = DaemonConfig("no-such-user", "no-such-hook")
    assert problems_of(replace(PLAIN, daemon=absent)) == [
        (
            "daemon.user: user no-such-user does not exist; run useradd --system --no-create-home "
            "no-such-user"
        ),
        (
            "daemon.hook_user: user no-such-hook does not exist; run useradd --system "
            "--no-create-home no-such-hook"
        ),
    ]
    assert (
        problems_of(
            replace(PLAIN, daemon=DaemonConfig("4711", "4712"), hooks=HookConfig(up=str(hook)))
        )
        == []
    )


def test_hooks(tmp_path: Path) -> None:
    plain, loose = tmp_path / "plain", tmp_path / "loose"
    for path, mode in ((plain, 0o644), (loose, 0o777)):
        path.write_text("#!/bin/sh\n")
        path.chmod(mode)
    hooks = HookConfig(str(tmp_path / "none"), str(tmp_path), str(plain), str(loose))
    assert problems_of(replace(PLAIN, daemon=DaemonConfig(hook_user="4712"), hooks=hooks)) == [
        (
            f"hooks.up: {tmp_path}/none can't be run: no such file or directory; name an "
            "executable file"
        ),
        f"hooks.degraded: {tmp_path} is not a regular file; name an executable file",
        f"hooks.down: {plain} isn't executable; run chmod a+x {plain}",
        f"hooks.primary: {loose} is writable by everyone; run chmod o-w {loose}",
    ]


def test_a_family_without_targets() -> None:
    four = (Probe("icmp", "192.0.2.1"),)
    told = (
        "uplink.a: no probe is IPv6, so that only its gateway is checked in that family; add an "
        "IPv6 target, or a name with an IPv6 address"
    )
    assert problems_of(probing(four), 4, 6) == [told]
    assert problems_of(replace(PLAIN, health=HealthConfig(probes=four)), 4, 6) == [told]
    assert problems_of(probing(four), 4) == []
    assert problems_of(probing(()), 4, 6) == []  # as its owner wants it


def test_names_without_addresses_of_a_family(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking: dict[str, set[Family]] = {"both": set(), "four": {6}, "none": {4, 6}}
    asked: list[str] = []

    def look_up(hosts: Iterable[str]) -> dict[str, set[Family]]:
        asked.extend(hosts)
        return lacking

    monkeypatch.setattr(check_daemon, "lacking_families", look_up)
    both, four, none = (Probe("tcp", host, 443) for host in lacking)
    six = Probe("icmp", "2001:db8::1")
    assert problems_of(probing((both, six)), 4, 6) == []
    assert problems_of(probing((four,)), 4) == []
    told = (
        "uplink.a.probes: four has no AAAA record, so it isn't probed over IPv6; add another "
        "target for IPv6"
    )
    assert problems_of(probing((four, six)), 4, 6) == [told]
    only = problems_of(probing((four,)), 4, 6)
    assert only[0].startswith("uplink.a: no probe is IPv6, so that only its gateway is checked")
    assert only[1:] == [told]
    asked.clear()
    shared = replace(PLAIN, health=HealthConfig(probes=(both, none, Probe("icmp", "192.0.2.1"))))
    assert problems_of(shared, 4, 6) == [
        "health.probes: none doesn't resolve; correct or remove it"
    ]
    assert sorted(asked) == ["both", "none"]


def test_notifiers_have_files_that_their_user_alone_reads_and_their_program(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = folder / "password"
    password.write_text("s3cret\n")
    password.chmod(0o644)
    missing = str(folder / "none")
    notify = (
        NotifyConfig("ops", mail="a@example.org", password_file=str(password)),
        NotifyConfig("hook", webhook="https://example.org/", secret_file=missing),
        NotifyConfig("chat", apprise=str(password)),
    )
    daemon = DaemonConfig(str(os.getuid() + 1))
    monkeypatch.setattr(check_daemon, "find_program", lambda _: None)
    gone = f"notify: hook: {missing} can't be read: no such file or directory"
    no_program = f"notify: {APPRISE_MISSING}; {APPRISE_REMEDY}"
    assert problems_of(replace(PLAIN, daemon=daemon, notify=notify)) == [
        f"notify: ops: {password} is readable by others; run chmod 0400 {password}",
        f"{gone}; create it, or correct the path",
        f"notify: chat: {password} is readable by others; run chmod 0400 {password}",
        no_program,
    ]
    password.chmod(0o400)
    owned = f"isn't owned by {daemon.user}, which reads it; run chown {daemon.user} {password}"
    assert problems_of(replace(PLAIN, daemon=daemon, notify=notify[:1])) == [
        f"notify: ops: {password} {owned}"
    ]
