"""The secrets of DNS cookies roll, and outlive the engine."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest

from ifdefault.daemon.dns import cookie_secrets
from ifdefault.daemon.dns.cookie_secrets import COOKIES, ROLL_S, CookieSecrets
from ifdefault.host.store import Store
from ifdefault.ipc.messages import TO_DNS_SERVER, ZoneEnd, decode, encode

DAY_S, START_S = ROLL_S, 1_764_000_000


def test_secrets_roll_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [float(START_S)]
    monkeypatch.setattr(time, "time", lambda: now[0])

    engine = CookieSecrets(Store(tmp_path))
    first, current_s = engine.current()
    assert (len(first), current_s) == (1, DAY_S)
    now[0] += DAY_S - 1
    assert engine.current() == (first, 1)
    now[0] += 1
    second, current_s = engine.current()
    assert (len(second), second[1:], current_s) == (2, first, DAY_S)
    now[0] += DAY_S / 2
    successor = CookieSecrets(Store(tmp_path))
    assert successor.current() == (second, DAY_S / 2)
    now[0] += DAY_S
    third, _ = successor.current()
    assert third[1:] == second[:1]
    assert len({*first, *second, *third}) == 3
    assert stat.S_IMODE((tmp_path / COOKIES.name).stat().st_mode) == 0o600


def test_a_secret_of_the_future_is_replaced(tmp_path: Path) -> None:
    """As after the clock was wrong: else it would be in use for long."""
    store = Store(tmp_path)
    store.write(COOKIES, (cookie_secrets._CookieSecret(1 << 40, "0f" * 16),))
    secrets, current_s = CookieSecrets(store).current()
    assert (len(secrets), secrets[1:], current_s) == (2, ("0f" * 16,), DAY_S)


def test_there_are_never_more_than_a_message_may_have(tmp_path: Path) -> None:
    """As if another version had kept more."""
    store = Store(tmp_path)
    kept = (cookie_secrets._CookieSecret(int(time.time()), "0f" * 16),) * 3
    store.write(COOKIES, kept)
    secrets, _ = CookieSecrets(store).current()
    end = ZoneEnd((), 0, secrets)
    assert decode(encode(end), TO_DNS_SERVER) == [end]
