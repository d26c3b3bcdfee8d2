"""The config of what an uplink costs and carries: a price, a budget, hours, a capacity, and what
becomes of connections when a better uplink returns."""

from __future__ import annotations

import pytest

from ifdefault import config
from ifdefault.model.config import UplinkConfig
from ifdefault.model.errors import ConfigError

UPLINK = '[uplink.lte]\ninterface = "wwan0"\n'


def parse(text: str) -> UplinkConfig:
    return config.parse(text, "f").uplinks[0]


def test_all_that_can_be_said() -> None:
    lte = parse(
        f"""{UPLINK}metered = true
budget = "50 GB"
on_budget = "down"
hours = "20:00-7:30"
capacity = "100/0.5 Mbit/s"
on_return = "stay"
grace = "1m30s"
"""
    )
    assert (lte.metered, lte.budget_bytes, lte.on_budget) == (True, 50 * 10**9, "down")
    assert lte.hours == (1200, 450)
    assert lte.capacity == (100_000_000, 500_000)
    assert (lte.on_return, lte.grace_s) == ("stay", 90)


@pytest.mark.parametrize(
    ("of_uplink", "outgoing", "expected"),
    [
        ("", "", ("stay", 30)),
        ("", 'on_return = "end"\ngrace = "5m"', ("end", 300)),
        ('on_return = "stay"', 'on_return = "end"', ("stay", 30)),
        ("metered = true", 'on_return = "stay"\ngrace = "0s"', ("end", 0)),
        ('metered = true\non_return = "stay"\ngrace = "0s"', "", ("stay", 0)),
    ],
)
def test_what_an_uplink_does_not_say_is_said_for_all(
    of_uplink: str, outgoing: str, expected: tuple[str, int]
) -> None:
    uplink = parse(f"{UPLINK}{of_uplink}\n[outgoing]\n{outgoing}\n")
    assert (uplink.on_return, uplink.grace_s) == expected


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ('on_budget = "standby"', '"standby" without a budget; add one'),
        ('budget = ""\non_budget = "down"', '"down" without a budget'),
        ('budget = "0 GB"', '"0 GB" is not a budget; leave it out for an unlimited line'),
        ('hours = "8-20"', '"8-20" is not a time of day'),
        ('hours = "08:00-08:00"', "ends when it begins; leave hours out"),
        ('hours = "24:00-08:00"', "is not a time of day"),
        ('capacity = "100"', '"100" is not a capacity; write it like "100 Mbit/s"'),
        ('capacity = "100 MB/s"', "is not a capacity"),
        ('capacity = "0 Mbit/s"', "is not a capacity; leave it out"),
        ('capacity = "10/0 Mbit/s"', "is not a capacity; leave it out"),
        ('grace = "2d"', '"2d" is out of range'),
        ('grace = "soon"', '"soon" is not a time'),
        ('on_return = "kill"', '"kill" is not valid'),
        ("metered = 1", "not true or false"),
    ],
)
def test_each_error_says_what_would_be_right(key: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"{UPLINK}{key}\n")
    (problem,) = caught.value.problems
    assert told in str(problem)


def test_an_error_in_outgoing_is_told_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f'{UPLINK}[outgoing]\ngrace = "x"\n')
    (problem,) = caught.value.problems
    assert str(problem).startswith('f:4: outgoing.grace: "x" is not a time')
