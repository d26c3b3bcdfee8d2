"""Debian's own kernels, taken from the machine's own apt sources into a cache folder.

Rules: apt works on lists and a cache of its own, so nothing of the machine's changes. A kernel is
unpacked once; a newer one of the same release takes its place when the cache is removed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Debian's releases, by code name, and the kernel series of each.
SERIES = {"bookworm": "6.1", "trixie": "6.12"}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class NotAvailable(Exception):
    """A kernel can't be had here."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel."""

    release: str
    version: str
    image: Path
    modules: Path  # of all versions: lib/modules
    busybox: Path

    @property
    def series(self) -> str:
        return SERIES[self.release]

    def insmod_order(self, names: tuple[str, ...]) -> tuple[Path, ...]:
        """The files of some modules and of what they need, as they must be loaded."""
        command = ["modprobe", "-S", self.version, "-d", str(self.modules.parents[1])]
        done = _run([*command, "--show-depends", "-a", *names])
        rows = [line.split() for line in done.splitlines()]
        return tuple(dict.fromkeys(Path(row[1]) for row in rows if row[0] == "insmod"))


def kernel(release: str, cache: Path) -> Kernel:
    """Return a release's kernel, fetched if it isn't in the cache."""
    folder = cache / release
    if not (folder / "complete").exists():
        for stale in cache.glob(f"{release}-*"):  # of a run that was killed
            shutil.rmtree(stale)
        with tempfile.TemporaryDirectory(prefix=f"{release}-", dir=cache) as scratch:
            fresh = Path(scratch) / "root"
            _unpack(_download(release, Path(scratch)), fresh)
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
    modules = folder / "lib/modules"
    (version,) = (path.name for path in modules.iterdir())
    busybox = folder / "bin/busybox"
    return Kernel(release, version, folder / f"boot/vmlinuz-{version}", modules, busybox)


def repository() -> str:
    """The Debian repository that the machine uses, as a URI."""
    with _asking:  # apt-get update runs once at a time
        return _repository()


_asking = threading.Lock()


@cache
def _repository() -> str:
    form = "$(ORIGIN) $(CODENAME) $(REPO_URI)"
    for refresh in (False, True):  # apt knows an origin only when it has the release file
        if refresh:
            _run(["apt-get", "-q", "update"])
        for line in _run(
            ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
        ).splitlines():
            origin, codename, uri = line.split(maxsplit=2)
            if origin == "Debian" and "-" not in codename:
                return uri
    raise NotAvailable("no apt source of this machine is a release of Debian; add one")


def _download(release: str, scratch: Path) -> list[Path]:
    """Fetch the kernel's package, and a static busybox to start it with."""
    sources = scratch / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {repository()} {release} main\n")
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True)
    options = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": scratch / "state",
        "Dir::Cache": scratch / "cache",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",  # others may not write here
    }
    apt = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    _run(["apt-get", *apt, "-q", "update"])
    depends = _run(["apt-cache", *apt, "depends", "--important", "linux-image-amd64"])
    image = next(word for word in depends.split() if word.startswith("linux-image-6"))
    _run(["apt-get", *apt, "-q", "download", image, "busybox-static"], cwd=scratch)
    return sorted(scratch.glob("*.deb"))


def _unpack(packages: list[Path], root: Path) -> None:
    for package in packages:
        _run(["dpkg-deb", "-x", str(package), str(root)])
    if not (root / "lib").exists():  # newer packages have their files under /usr
        (root / "lib").symlink_to("usr/lib")
    if not (root / "bin").exists():
        (root / "bin").symlink_to("usr/bin")
    (version,) = (path.name for path in (root / "lib/modules").iterdir())
    _run(["depmod", "-b", str(root), version])
    (root / "complete").touch()


def _run(command: list[str], cwd: Path | None = None) -> str:
    if shutil.which(command[0]) is None:
        raise NotAvailable(f"there is no {command[0]} here: run it on Debian")
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        raise NotAvailable(f"{' '.join(command)}: {(done.stderr + done.stdout).strip()}")
    return done.stdout
