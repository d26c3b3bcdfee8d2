"""ifdefault's package for each release of Debian, built and installed in a folder of that release.

    former-RELEASE      the package of the last release
    installed-RELEASE   what installing the package changes ┐
    systemd-RELEASE     see `folder` ───────────────────────┴─ tools-RELEASE   what builds packages,
                                                              and what only documents use

Rules: in the cache folder, made anew when what they are made of has changed. What is built is what
`./dev package` builds; the machine's pip fetches the wheels, since it knows where it finds them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.markers import Marker

from ifdefault import __version__
from tests.systemd import folder

CHECKOUT = Path(__file__).parents[2]
HOME = "usr/lib/ifdefault"  # of the installed program
# The last release, which is upgraded: its tag, or its commit where a clone has no tags.
_FORMER = ("v0.2.0", "ea7049beb0e9e1b0477707df80453d44e6615c0f")
_LOWER = "0.1.99"  # takes its place in a checkout without history: the same files, another version
_TOOLS = "debhelper dh-python python3-pip pipx wireguard-tools wireguard-go mptcpize"
_SOURCES = tuple("src/ man/ packaging/ docs/ README.md CHANGELOG.md SECURITY.md LICENSE".split())
_INSTALL_TOOLS = f"""\
apt-get -q -o APT::Sandbox::User=root update
apt-get -q -y --no-install-recommends -o APT::Sandbox::User=root install {_TOOLS}
apt-get clean
rm -rf /var/lib/apt/lists/* # as below: nothing that could be fetched is known
"""
_BUILD = """\
cd /mnt
export DPKG_DEB_COMPRESSOR_TYPE=gzip # quicker
packaging/build-deb -d
"""


def path(cache: Path, release: str, name: str = "ifdefault") -> Path:
    """A package: "ifdefault", or "former", the last release."""
    return cache / f"packages-{release}" / f"{name}.deb"


def former_version(cache: Path, release: str) -> str:
    """Of the former package: "0.2.0", or what stands in for it."""
    command = ["dpkg-deb", "-f", str(path(cache, release, "former")), "Version"]
    return folder.run(command).partition("~")[0].strip()


def layers(cache: Path, release: str) -> list[Path]:
    """The files of a release with ifdefault, the uppermost first."""
    return [cache / f"installed-{release}" / "upper", folder.path(cache, release)]


def tools(cache: Path, release: str) -> Path:
    """More programs, for above a release's own files."""
    return cache / f"tools-{release}" / "upper"


def make(cache: Path) -> None:
    """Make the folders and packages of all releases."""
    folder.make(cache)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda release: _make(cache, release), folder.RELEASES))


def _make(cache: Path, release: str) -> None:
    base = folder.path(cache, release).with_suffix(".stamp").read_text()
    changes = tools(cache, release).parent
    text = base + _INSTALL_TOOLS
    if not folder.is_made(changes, text):
        shutil.rmtree(changes, ignore_errors=True)
        folder.chroot([folder.path(cache, release)], changes, _INSTALL_TOOLS, network=True)
        folder.stamp(changes, text)
    commit = _commit_of_former()
    former = cache / f"former-{release}"
    if commit and not folder.is_made(former, text + commit):
        shutil.rmtree(former, ignore_errors=True)
        former.mkdir()
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _export(commit, Path(scratch) / "source")
            _build(cache, release, Path(scratch), former / "former.deb")
        folder.stamp(former, text + commit)
    packages = cache / f"packages-{release}"
    text += _content() + commit
    if not folder.is_made(packages, text):
        shutil.rmtree(packages, ignore_errors=True)
        packages.mkdir()
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _copy_files(Path(scratch) / "source")
            _build(cache, release, Path(scratch), path(cache, release))
            shutil.move(Path(scratch) / "source/wheels", packages)
        folder.run([sys.executable, "-m", "hatchling", "build", "-d", str(packages)])
        if commit:
            shutil.copy(former / "former.deb", packages)
        else:
            _make_lower(cache, release)
        _install(cache, release)
        folder.stamp(packages, text)


def _commit_of_former() -> str:
    """ "" in a checkout without history, which has to be said."""
    for name in _FORMER:
        command = ["git", "-C", str(CHECKOUT), "rev-parse", "-q", "--verify", f"{name}^{{commit}}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not done.returncode:
            return done.stdout.strip()
    print(f"this checkout has no {_FORMER[0]}: the upgrade is from the same files", file=sys.stderr)
    return ""


def _export(commit: str, source: Path) -> None:
    source.mkdir()
    archive = source.with_suffix(".tar")
    folder.run(["git", "-C", str(CHECKOUT), "archive", "-o", str(archive), commit, *_SOURCES])
    folder.run(["tar", "-C", str(source), "-xf", str(archive)])


def _copy_files(source: Path) -> None:
    for file in _files():
        copy = source / file.relative_to(CHECKOUT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)


def _files() -> list[Path]:
    """All that a package is made of."""
    names = folder.run(["git", "-C", str(CHECKOUT), "ls-files", "-co", "--exclude-standard", "-z"])
    files = [CHECKOUT / name for name in sorted(names.split("\0")) if name.startswith(_SOURCES)]
    return [file for file in files if file.is_file()]


def _content() -> str:
    """What differs if one of these files does."""
    digest = hashlib.sha256()
    for file in (Path(__file__), *_files()):
        data = file.read_bytes()
        digest.update(f"{file.name} {file.stat().st_mode:o} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def _build(cache: Path, release: str, scratch: Path, target: Path) -> None:
    """Build it from what a source release has, which is in scratch/source, and what the locks in
    its packaging/ name."""
    source = scratch / "source"
    wheels = source / "wheels"
    wheels.mkdir()
    python = _python(folder.path(cache, release))
    for name in ("requirements", "providers"):
        lock = scratch / f"{name}.lock"
        lock.write_text(_locked((source / f"packaging/{name}.lock").read_text(), python))
        folder.run(
            [
                *(sys.executable, "-m", "pip", "download", "-qq", "--require-hashes", "--no-deps"),
                *("--only-binary=:all:", "--python-version", python, "-d", str(wheels)),
                *("--disable-pip-version-check", "-r", str(lock)),
            ]
        )
    changes = scratch / "changes"
    folder.chroot(
        [tools(cache, release), folder.path(cache, release)], changes, _BUILD, source=source
    )
    (package,) = (changes / "upper").glob("ifdefault_*.deb")
    shutil.move(package, target)


def _python(root: Path) -> str:
    """The full version of a release's Python."""
    name = (root / "usr/bin/python3").readlink().name
    command = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Version}", name]
    return folder.run(command).partition("-")[0]


def _locked(lock: str, python: str) -> str:
    """The rows of a lock for a version of Python: pip reads them as if they were for its own."""
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    rows = []
    for row in lock.replace("\\\n", " ").splitlines():
        requirement, found, hashes = row.partition(" --hash")
        if found:
            text, _, marker = requirement.partition(";")
            if not marker or Marker(marker).evaluate(environment):
                rows.append(text + found + hashes)
    return "\n".join(rows)


def _make_lower(cache: Path, release: str) -> None:
    """The same package with a lower version: it is unpacked, changed and packed again."""
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        root = Path(scratch) / "root"
        folder.run(["dpkg-deb", "-R", str(path(cache, release)), str(root)])
        control = root / "DEBIAN/control"
        text, _ = re.subn(r"(?m)^Version: .*$", f"Version: {_LOWER}", control.read_text())
        control.write_text(text)
        (init,) = root.glob(f"{HOME}/lib/*/site-packages/ifdefault/__init__.py")
        init.write_text(init.read_text().replace(__version__, _LOWER))
        former = path(cache, release, "former")
        folder.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-b", str(root), str(former)])


def _install(cache: Path, release: str) -> None:
    changes = cache / f"installed-{release}"
    shutil.rmtree(changes, ignore_errors=True)
    script = "apt-get -q -y install /mnt/ifdefault.deb"
    folder.chroot(
        [folder.path(cache, release)], changes, script, source=path(cache, release).parent
    )
