"""Network tests: worlds to test in, and what to show when a test fails.

Rules: a network test that can't run is an error. A world is taken down at the end
of its test; `--keep` leaves it standing and says how to get in. The state of every world that a
failed test used is in its report.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from ifdefault.lab.rootless import capable
from ifdefault.lab.topology import Topology, load
from ifdefault.lab.world import World
from tests.net.forkserver import ForkedWorld

LabWorld = Callable[[str | Topology], World]

_failed = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.net)


@pytest.fixture(scope="session", autouse=True)
def _network_rights() -> None:
    """Fail every test here, with the remedy, where namespaces can't be made."""
    remedy = "run it as root, or by `python -m ifdefault.lab.rootless`"
    assert capable(), f"the lab needs the right to make network namespaces, {remedy}"


@pytest.fixture
def lab_world(request: pytest.FixtureRequest) -> Iterator[LabWorld]:
    """Make worlds: `world = lab_world("two")`."""
    worlds: list[World] = []

    def make(topology: str | Topology) -> World:
        world = ForkedWorld.up(load(topology) if isinstance(topology, str) else topology)
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
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report
