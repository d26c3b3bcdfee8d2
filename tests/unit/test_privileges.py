"""Which user a process becomes when it drops its privileges, and how that is checked."""

from __future__ import annotations

import os
import pwd

import pytest

from ifdefault.ipc import privileges
from ifdefault.ipc.privileges import KEEP, NOBODY, choose_user, is_mapped, left_over, possible

NOTHING = "0" * 16
STATUS = f"""\
Name:\tpython
Uid:\t990\t990\t990\t990
Gid:\t991\t991\t991\t991
Groups:\t
CapInh:\t{NOTHING}
CapPrm:\t{NOTHING}
CapEff:\t{NOTHING}
CapBnd:\t{NOTHING}
CapAmb:\t{NOTHING}
NoNewPrivs:\t1
"""


def entry(name: str, uid: int, gid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, gid, "", "/", "/bin/false"))


def test_a_user_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwnam", lambda name: entry(name, 990, 991))
    assert choose_user("ifdefault") == (990, 991, "")


@pytest.mark.parametrize(
    ("users", "why"),
    [
        ({"nobody": (65533, 65532)}, "user ifdefault does not exist"),
        ({"nobody": (65533, 65532), "ifdefault": (0, 5)}, "user ifdefault is root"),
        ({"nobody": (65533, 65532), "ifdefault": (5, 0)}, "user ifdefault is root"),
        ({}, "user ifdefault does not exist"),
        ({"nobody": (0, 0)}, "user ifdefault does not exist"),
    ],
)
def test_nobody_is_used_instead(
    monkeypatch: pytest.MonkeyPatch, users: dict[str, tuple[int, int]], why: str
) -> None:
    monkeypatch.setattr(pwd, "getpwnam", lambda name: entry(name, *users[name]))
    uid, gid, warning = choose_user("ifdefault")
    own = users.get("nobody", (0, 0))
    assert (uid, gid) == (own if all(own) else (NOBODY, NOBODY))
    assert warning == (f"{why}; using nobody: create a system user for it")


def test_which_ids_a_namespace_knows() -> None:
    assert is_mapped(65534, "         0          0 4294967295\n")
    rootless = "         0       1000          1\n"
    assert is_mapped(0, rootless)
    assert not is_mapped(65534, rootless)
    assert is_mapped(100, f"{rootless}         1     100000      65536\n")
    assert not is_mapped(1, "")


def test_who_isnt_root_stays_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert possible(990, 991) == (KEEP, KEEP)


def test_one_that_gave_up_all() -> None:
    assert left_over(STATUS, 990) == ()
    assert left_over(STATUS.replace("990", "0").replace("991", "0"), privileges.KEEP) == ()


@pytest.mark.parametrize(
    ("was", "is_now", "found"),
    [
        (f"CapInh:\t{NOTHING}", "CapInh:\t0000000000000400", "CapInh 0000000000000400"),
        (f"CapBnd:\t{NOTHING}", "CapBnd:\t000001ffffffffff", "CapBnd 000001ffffffffff"),
        ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "NoNewPrivs isn't set"),
        ("990\t990\t990\t990", "990\t0\t990\t990", "Uid 990 0 990 990"),
        ("991\t991\t991\t991", "991\t991\t0\t991", "groups"),
        ("Groups:\t", "Groups:\t27", "groups"),
    ],
)
def test_one_that_kept_something(was: str, is_now: str, found: str) -> None:
    assert left_over(STATUS.replace(was, is_now), 990) == (found,)


def test_a_user_by_number() -> None:
    nobody = pwd.getpwnam("nobody")
    assert choose_user(str(nobody.pw_uid)) == (nobody.pw_uid, nobody.pw_gid, "")
    assert choose_user("0")[2]
    assert choose_user("4000000000")[2]
