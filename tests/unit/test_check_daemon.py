"""What `check` says that the daemon will not find on this host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ifdefault.host.check_daemon import find_problems
from ifdefault.model.config import (
    Config,
    DaemonConfig,
    Family,
    HealthConfig,
    HookConfig,
    Probe,
    UplinkConfig,
)
from ifdefault.model.kernel import Uplink


def lacks(config: Config, *families: Family) -> list[str]:
    addresses: dict[Family, str] = {4: "203.0.113.10", 6: "2001:db8:a::10"}
    sources = tuple((family, addresses[family]) for family in families)
    uplink = Uplink("a", 1, "wan0", 1001, 0, 0, 0, sources=sources)
    found = list(find_problems(config, (uplink,)))
    assert all(problem.warning for problem in found)
    return [str(problem) for problem in found]


PLAIN = Config((UplinkConfig("a", "wan0"),))


def probing(probes: tuple[Probe, ...]) -> Config:
    return Config((UplinkConfig("a", "wan0", probes=probes),))


def test_defaults_lack_nothing() -> None:
    assert lacks(PLAIN, 4, 6) == []


def test_users(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    absent = DaemonConfig("no-such-user", "no-such-hook")
    assert lacks(replace(PLAIN, daemon=absent)) == [
        (
            'daemon.user: there is no user "no-such-user", useradd --system --no-create-home '
            "no-such-user"
        ),
        (
            'daemon.hook_user: there is no user "no-such-hook", useradd --system --no-create-home '
            "no-such-hook"
        ),
    ]
    assert (
        lacks(replace(PLAIN, daemon=DaemonConfig("4711", "4712"), hooks=HookConfig(up=str(hook))))
        == []
    )


def test_hooks(tmp_path: Path) -> None:
    plain, loose = tmp_path / "plain", tmp_path / "loose"
    for path, mode in ((plain, 0o644), (loose, 0o777)):
        path.write_text("#!/bin/sh\n")
        path.chmod(mode)
    hooks = HookConfig(str(tmp_path / "none"), str(tmp_path), str(plain), str(loose))
    assert lacks(replace(PLAIN, daemon=DaemonConfig(hook_user="4712"), hooks=hooks)) == [
        (
            f"hooks.up: {tmp_path}/none can't be run: no such file or directory, name an "
            "executable file"
        ),
        f"hooks.degraded: {tmp_path} is no file, name an executable file",
        f"hooks.down: {plain} isn't executable, chmod a+x {plain}",
        f"hooks.primary: {loose} may be changed by anybody, chmod o-w {loose}",
    ]


def test_a_family_without_targets() -> None:
    four = (Probe("icmp", "192.0.2.1"),)
    told = (
        "uplink.a: none of its probes is IPv6, so that its gateway alone decides there, add an "
        "IPv6 target, or a name that has one"
    )
    assert lacks(probing(four), 4, 6) == [told]
    assert lacks(replace(PLAIN, health=HealthConfig(probes=four)), 4, 6) == [told]
    assert lacks(probing(four), 4) == []
    assert lacks(probing((*four, Probe("tcp", "example.net", 443))), 4, 6) == []
    assert lacks(probing(()), 4, 6) == []  # as its owner wants it
