"""Network tests: worlds to test in, and what to show when a test fails.

Rules: a network test that can't run is an error, never a skip. A world is taken down at the end
of its test; `--keep` leaves it standing and says how to get in. The state of every world that a
failed test used is in its report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ifdefault.lab.rootless import rights
from ifdefault.lab.topology import Topology, load
from ifdefault.lab.world import World

LabWorld = Callable[[str | Topology], World]

_failed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep", action="store_true", help="leave the lab's worlds standing")


@pytest.fixture(scope="session", autouse=True)
def _network_rights() -> None:
    """Fail every test here, with the remedy, where namespaces can't be made."""
    rights()


@pytest.fixture
def lab_world(request: pytest.FixtureRequest) -> Iterator[LabWorld]:
    """Make worlds: `world = lab_world("two")`."""
    worlds: list[World] = []

    def make(topology: str | Topology) -> World:
        world = World.up(load(topology) if isinstance(topology, str) else topology)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        if request.node.stash.get(_failed, False):
            request.node.add_report_section("teardown", "lab", world.dump())
        if request.config.getoption("--keep"):
            print(f"kept: ifdefault lab shell --world {world.name} host")
        else:
            world.down()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    # a skip would say "all is well" of something that nobody has seen
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"a network test must not be skipped: {report.longrepr}"
    return report
