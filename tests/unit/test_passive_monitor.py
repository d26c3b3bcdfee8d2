"""What the passive monitor counts, of the loopback interface of this machine."""

from __future__ import annotations

import pytest

from ifdefault.daemon.passive_monitor import PassiveMonitor
from ifdefault.kernel.link_stats import LinkStatsReader
from ifdefault.model.config import Config, UplinkConfig

CONFIG = Config((UplinkConfig("lte", "lo", metered=True), UplinkConfig("gone", "none0")))


def test_bytes_are_counted_again_after_they_could_not_be_read(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monitor = PassiveMonitor()
    request.addfinalizer(monitor.close)
    assert monitor.poll(10.0, Config(CONFIG.uplinks[1:]), ()) is None, "nothing needs it"
    event = monitor.poll(10.0, CONFIG, ())
    assert event is not None
    assert [counter.uplink for counter in event.counters] == ["lte"]
    assert monitor.poll(10.5, CONFIG, ()) is None, "once a second"

    def fail(_: object) -> None:
        raise OSError(12, "out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(LinkStatsReader, "read", fail)
        assert monitor.poll(11.0, CONFIG, ()) is None
    again = monitor.poll(12.0, CONFIG, ())
    assert again is not None
    assert again.counters[0].link == event.counters[0].link
