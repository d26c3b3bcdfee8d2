"""What the tests under systemd share: booted hosts, and what to show when a test fails.

def test_it_starts(boot: Boot) -> None:
    host = boot(enable=["ifdefault.service"])
    host.await_state("ifdefault.service")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from ifdefault.lab.topology import Topology
from ifdefault.lab.world import World
from tests.net import answers
from tests.net.conftest import (
    LabWorld,
    _failed,
    _network_rights,
    lab_world,
    pytest_runtest_makereport,
)
from tests.systemd import CACHE, booted, folder, package
from tests.systemd.booted import CONFIG, Booted

__all__ = ["_network_rights", "lab_world", "pytest_runtest_makereport"]

# elsewhere they aren't there, rather than skipped
collect_ignore_glob = [] if CACHE in os.environ else ["test_*.py"]


def _nothing(world: World) -> None:
    pass


class Boot(Protocol):
    """Boot the host of a new world, which serves everything that `answers` asks for. `files` are
    more of its files, by their paths without "/", and `config` is more of its config. `bare`: its
    uplinks have no address; `before`: what is done to the world before it boots; `fresh`: ifdefault
    isn't installed; `here`: where its files are kept for the next boot."""

    def __call__(
        self,
        topology: str | Topology = "two",
        *,
        enable: Iterable[str] = (),
        files: Mapping[str, str] = {},
        config: str = "",
        bare: bool = False,
        before: Callable[[World], None] = _nothing,
        release: str = folder.MAIN,
        fresh: bool = False,
        here: Path | None = None,
    ) -> Booted: ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name != "test_package.py")  # the longest ones first
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.net)


@pytest.fixture
def boot(request: pytest.FixtureRequest, lab_world: LabWorld) -> Iterator[Boot]:
    """Boot hosts: `host = boot("two", enable=["ifdefault.service"])`."""
    hosts: list[Booted] = []

    def make(
        topology: str | Topology = "two",
        *,
        enable: Iterable[str] = (),
        files: Mapping[str, str] = {},
        config: str = "",
        bare: bool = False,
        before: Callable[[World], None] = _nothing,
        release: str = folder.MAIN,
        fresh: bool = False,
        here: Path | None = None,
    ) -> Booted:
        world = lab_world(topology)
        layers = package.layers(Path(os.environ[CACHE]), release)
        host = Booted(world, layers[fresh:], here)
        hosts.append(host)
        text = f"{world.topology.config}\n[health]\nrecover_s = 0.3\n{config}"
        booted.write(host.files, files if fresh else {CONFIG: text, **files})
        answers.serve(world)  # first: the daemon looks for new servers now and then only
        for dev in ("wan0", "wan1") if bare else ():
            world["host"].ip(f"address flush dev {dev} scope global\n")
        before(world)
        host.boot(enable)
        return host

    yield make
    for host in hosts:
        if request.node.stash.get(_failed, False):
            request.node.add_report_section("teardown", "booted", host.dump())
        if not request.config.getoption("--keep"):
            host.world.end()
            host.remove()
