"""The script of `down --script`: what it says, and that no name of others is a command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import (
    DeleteRule,
    Desired,
    Facts,
    LoadNft,
    Operation,
    PutHook,
    Rule,
    SetGroup,
    SetSysctl,
)
from ifdefault.model.mptcp import DeleteEndpoint, Endpoint, SetMptcpLimit
from ifdefault.plan.prepare import Prepared
from ifdefault.plan.undo_script import Host, render

HOST = Host("/var/lib/ifdefault/undo.sh", "0.2.0", "boot net:[1]", "ifd000000000001")
NASTY = "a$(reboot)'b;"


def steps(*operations: Operation, state: State | None = None) -> list[str]:
    text = script(*operations, state=state)
    after = text.partition("detach_programs() {")[2].partition("\n}\n\n")[2]
    return after.partition("\n\n#")[0].splitlines()


def script(*operations: Operation, state: State | None = None, host: Host = HOST) -> str:
    state = state or State()
    observation = Observation(Facts(), state, ())
    return render(Prepared(observation, (), Desired(), operations, state, ()), host)


@pytest.mark.parametrize(
    ("operation", "step"),
    [
        (SetSysctl("net/ipv4/ip_forward", "0", "1"), "restore_sysctl net/ipv4/ip_forward 1 0"),
        (SetSysctl("net/ipv4/a", "0", "0"), "keep_sysctl net/ipv4/a 0"),
        (SetGroup("wan0", 7, 171), "restore_group wan0 171 7"),
        (LoadNft("ifdefault", ""), "step nft delete table inet ifdefault"),
        (PutHook(None), "detach_programs"),
        (SetMptcpLimit("subflows", 2, 8), "restore_limit subflows 8 2"),
        (DeleteEndpoint(Endpoint(255, "::1")), "step ip mptcp endpoint delete id 255"),
        (SetGroup("a\x1b", 7, 171), """restore_group "$(printf %b '\\0141\\0033')" 171 7"""),
        (SetGroup("\udcff", 7, 171), """restore_group "$(printf %b '\\0377')" 171 7"""),
        (SetGroup(NASTY, 7, 171), "restore_group 'a$(reboot)'\\''b;' 171 7"),
        (
            DeleteRule(Rule(4, 5040, table=1001, oif=NASTY, protocol=171)),
            "step ip rule del pref 5040 from all oif 'a$(reboot)'\\''b;' lookup 1001 proto 171",
        ),
    ],
)
def test_steps(operation: Operation, step: str) -> None:
    assert steps(operation) == [step]


def test_groups_of_exec_are_removed() -> None:
    assert steps(state=State(runs={"/user.slice/ifdefault-1": "isp-a"})) == [
        'step rmdir "$cgroups"/user.slice/ifdefault-1'
    ]


def test_bpftool_is_needed_for_programs_alone() -> None:
    assert "need bpftool" not in script()
    assert "need bpftool bpftool" in script(PutHook(None))


@pytest.mark.parametrize("lacking", ["ip", "nft", "bpftool"])
def test_nothing_is_changed_without_a_program_that_it_needs(tmp_path: Path, lacking: str) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("ip", "ss", "nft", "bpftool"):
        (programs / name).write_text(f"#!/bin/sh\necho {name} >>{tmp_path}/ran\n")
        (programs / name).chmod(0o755)
    (programs / lacking).unlink()
    for name in ("awk", "cat", "grep", "head", "readlink"):
        (programs / name).symlink_to(shutil.which(name) or "")
    text = script(PutHook(None), LoadNft("ifdefault", ""))
    text = re.sub(r"(?m)^PATH=.*$", f"PATH={programs}", text.replace("$(id -u)", "0"))
    text = text.replace('"boot net:[1]"', '"$here"').replace("'boot net:[1]'", '"$here"')
    done = subprocess.run(["/bin/sh"], input=text, capture_output=True, text=True)
    package = {"ip": "iproute2", "nft": "nftables"}.get(lacking, lacking)
    assert done.stderr == (
        f"ifdefault: nothing was removed from the kernel: {lacking} is not installed; run: apt"
        f" install {package}; sh {HOST.path}\n"
    )
    assert done.returncode == 1
    ran = tmp_path / "ran"
    assert set(ran.read_text().split() if ran.exists() else ()) <= {"ss"}


def test_it_is_a_sound_script(tmp_path: Path) -> None:
    path = tmp_path / "undo.sh"
    path.write_text(script(PutHook(None), SetGroup("wan0", 7, 171)))
    subprocess.run(["sh", "-n", str(path)], check=True)
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True)
        assert done.stdout == ""


def test_another_boot_has_nothing_to_undo(tmp_path: Path) -> None:
    path = tmp_path / "undo.sh"
    path.write_text(script(LoadNft("ifdefault", "")).replace("$(id -u)", "0"))
    done = subprocess.run(["sh", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_its_own_path_is_no_command(tmp_path: Path) -> None:
    odd = tmp_path / "$(touch ran)`touch ran`'\"* @steps"
    text = script(host=replace(HOST, path=str(odd)))
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "sh"] if os.getuid() == 0 else ["sh"],
        input=text,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stderr == f"ifdefault: run this as root: sh {odd}\n"
    assert not (tmp_path / "ran").exists()
