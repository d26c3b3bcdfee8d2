"""The last config that worked: kept when it has, used when the file is invalid."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifdefault.host.last_config import LAST_CONFIG, ConfigFile, confirmed
from ifdefault.host.store import Store
from ifdefault.model.errors import ConfigError

GOOD = '[uplink.isp-a]\ninterface = "wan0"\n'
OTHER = '[uplink.isp-b]\ninterface = "wan1"\n'
MISTAKES = ("", "[", '[uplink.isp-a]\ninterfacE = "wan0"\n', "\0", "x = 1" * 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "ifdefault.toml").write_text(GOOD)
    return tmp_path / "ifdefault.toml"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "state").mkdir()
    return Store(tmp_path / "state", daemon=True)


def kept(store: Store) -> str:
    last = Store(store.directory).read(LAST_CONFIG)
    return last.text if last else ""


@pytest.mark.parametrize("mistake", [*map(str.encode, MISTAKES), b"\xff\xfe"])
def test_a_mistake_in_the_file(path: Path, store: Store, mistake: bytes) -> None:
    file = ConfigFile(path, store)
    good = file.read_or_last()
    file.worked(good)
    path.write_bytes(mistake)
    again = ConfigFile(path, store)
    assert again.read_or_last() == good
    *errors, used = map(str, again.errors)
    assert errors
    assert f"{path}: invalid; the last config that worked, of 20" in used
    again.worked(good)  # isn't what is in the file
    assert kept(store) == GOOD
    with pytest.raises(ConfigError):
        again.read()
    path.write_text(OTHER)
    again.worked(again.read())
    assert again.errors == ()
    assert kept(store) == OTHER


def test_what_hasnt_worked_is_not_kept(path: Path, store: Store) -> None:
    file = ConfigFile(path, store)
    first = file.read()
    path.write_text(OTHER)
    file.read()
    file.worked(first)  # a reload was refused, or waits for its confirmation
    assert kept(store) == ""
    path.write_text("[")
    with pytest.raises(ConfigError, match="not TOML"):
        file.read_or_last()


def test_what_was_tried_and_not_confirmed_is_not_used_at_a_start(path: Path, store: Store) -> None:
    file = ConfigFile(path, store)
    good = file.read()
    file.tried()  # the first one ever: there is nothing to fall back to
    assert ConfigFile(path, store).read_or_last() == good
    file.worked(good)
    assert ConfigFile(path, store).read_or_last() == good, "it was confirmed"
    path.write_text(OTHER)
    other = file.read()
    file.tried()
    file.worked(good)  # undone
    again = ConfigFile(path, store)
    assert again.read_or_last() == good
    (used,) = map(str, again.errors)
    assert f"{path}: not confirmed; the last config that worked, of 20" in used
    assert used.endswith("is used instead; to use the file, run ifdefault apply")
    again.worked(again.read())  # as `apply` does
    assert ConfigFile(path, store).read_or_last() == other
    path.write_text(GOOD + "# changed\n")
    assert ConfigFile(path, store).read_or_last() == good, "another text wasn't tried"


def test_no_file_is_no_mistake(path: Path, store: Store) -> None:
    file = ConfigFile(path, store)
    file.worked(file.read())
    path.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        file.read_or_last()


def test_a_copy_that_is_of_no_use_is_as_none(path: Path, store: Store) -> None:
    file = ConfigFile(path, store)
    file.worked(file.read())
    for name in (LAST_CONFIG.name, LAST_CONFIG.copy):
        text = (store.directory / name).read_text()
        (store.directory / name).write_text(text.replace("wan0", "wan9"))
    path.write_text("[")
    with pytest.raises(ConfigError, match="not TOML"):
        ConfigFile(path, store).read_or_last()
    assert len(store.take_news()) == 2


@pytest.mark.parametrize(("text", "keeps"), [(GOOD, GOOD), (OTHER, ""), ("[", "")])
def test_what_was_confirmed_is_what_was_applied(
    path: Path, store: Store, text: str, keeps: str
) -> None:
    file = ConfigFile(path, store)
    file.read()
    path.write_text(text)
    confirmed(path, store, file.digest)
    assert kept(store) == keeps
