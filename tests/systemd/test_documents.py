"""What the documents tell a reader to do is done, block by block, and shows what they show.

client ── core ─┬─ isp-a ── wan0 ┬─ host: Debian, with systemd
                └─ isp-b ── wan1 ┘
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ifdefault import __version__
from tests.net.conftest import LabWorld, _failed
from tests.systemd import CACHE, blocks, booted, package
from tests.systemd.booted import Booted
from tests.systemd.documents import FORMER, HOSTS, READERS, text

WHEELS = "var/cache/wheels"  # pip's index
_ANSWERS_YES = {"etc/apt/apt.conf.d/yes": 'APT::Get::Assume-Yes "true";\n'}
_NO_INDEX = {
    "etc/pip.conf": f"[global]\nno-index = true\nfind-links = /{WHEELS} /usr/share/python-wheels\n"
}


@pytest.fixture
def host(
    request: pytest.FixtureRequest, lab_world: LabWorld, name: str, release: str
) -> Iterator[Booted]:
    """The reader's host, with the package in his home directory."""
    reader = READERS[name]
    world = lab_world(reader.topology)
    reader.around(world)
    cache = Path(os.environ[CACHE])
    layers = package.layers(cache, release)[not reader.installed :]
    if reader.tools:
        layers.insert(-1, package.tools(cache, release))
    host = Booted(world, layers)
    booted.write(host.files, {**_ANSWERS_YES, **_NO_INDEX, **reader.files})
    home = f"root/ifdefault_{__version__}_amd64.deb"
    for name, path in (("ifdefault", home), ("former", FORMER)):
        (host.files / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(package.path(cache, release, name), host.files / path)
    packages = package.path(cache, release).parent
    for file in (*packages.glob("*.whl"), *packages.glob("*.tar.gz")):
        shutil.copy(file, host.files / "root")
    if reader.tools:
        shutil.copytree(packages / "wheels", host.files / WHEELS)
    host.boot()
    host.shell(reader.before)
    for name in reader.after:
        blocks.follow(text(name), host)
    yield host
    if request.node.stash.get(_failed, False):
        request.node.add_report_section("teardown", "booted", host.dump())
    if not request.config.getoption("--keep"):
        world.end()
        host.remove()


@pytest.mark.parametrize(("name", "release"), HOSTS)
def test_it_is_as_it_says(host: Booted, name: str) -> None:
    assert blocks.follow(text(name), host, READERS[name].elsewhere) > 0
