"""Debian 12 and 13 in folders, with systemd and the programs that our units meet.

Rules: each is made once by mmdebstrap, from the machine's own apt source, into the cache folder. No
service is enabled: a test enables what it needs. ifdefault isn't in them: see `package`.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.system.debian import KEYRING, NotAvailable, repository

_COMMON = """
systemd-sysv dbus libpam-systemd iproute2 nftables iputils-ping procps kmod python3 openssh-server
nginx
""".split()
RELEASES = {
    "bookworm": [
        *_COMMON,
        *"ifupdown isc-dhcp-client network-manager netplan.io".split(),
        *"ufw firewalld fail2ban docker.io busybox-static".split(),
        *"bind9 bind9-dnsutils caddy".split(),  # what documents use
        *"curl prometheus prometheus-node-exporter".split(),
    ],
    "trixie": [
        *_COMMON,
        *"ifupdown dhcpcd-base network-manager networkd-dispatcher podman busybox-static".split(),
    ],
}
MAIN = "bookworm"  # where a test runs that isn't about a release
_NONE_ENABLED = "etc/systemd/system-preset/00-none.preset"

# In a mount namespace of its own, which ends with it.
_CHROOT = """\
set -e
[ -z "$size" ] || mount -t tmpfs -o "size=$size" tmpfs "$changes"
mkdir -p "$upper" "$work" "$root"
mount -t overlay -o "lowerdir=$lower,upperdir=$upper,workdir=$work" overlay "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$(realpath /etc/resolv.conf)" "$root/etc/resolv.conf"
[ -z "$source" ] || mount --bind "$source" "$root/mnt"
exec chroot "$root" sh -ec "$run"
"""


def path(cache: Path, release: str) -> Path:
    return cache / f"systemd-{release}"


def make(cache: Path) -> None:
    """Make the folders, each anew if what it is made of has changed."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda release: _make(cache, release), RELEASES))


def _make(cache: Path, release: str) -> None:
    folder = path(cache, release)
    text = "\n".join([release, *RELEASES[release], Path(__file__).read_text()])
    if not is_made(folder, text):
        shutil.rmtree(folder, ignore_errors=True)
        _bootstrap(folder, release)
        _disable_services(folder)
        stamp(folder, text)


def is_made(folder: Path, text: str) -> bool:
    """Whether a folder of the cache was made of this; if not, it is no longer taken for made."""
    file = folder.with_name(f"{folder.name}.stamp")
    made = file.exists() and file.read_text() == _digest(text)
    if not made:
        file.unlink(missing_ok=True)
    return made


def stamp(folder: Path, text: str) -> None:
    folder.with_name(f"{folder.name}.stamp").write_text(_digest(text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _bootstrap(folder: Path, release: str) -> None:
    source = f"deb [signed-by={KEYRING}] {repository()} {release} main"
    options = ["--mode=root", "--variant=minbase", "--format=directory", "--quiet"]
    options += [f"--include={','.join(RELEASES[release])}"]
    options += ['--aptopt=APT::Sandbox::User "root"']  # others may not write here
    # in a mount namespace: what it mounts there may be busy at its end
    run(["unshare", "--mount", "mmdebstrap", *options, release, str(folder), source])


def _disable_services(folder: Path) -> None:
    preset = folder / _NONE_ENABLED
    preset.parent.mkdir(parents=True, exist_ok=True)
    preset.write_text("disable *\n")
    run(["chroot", str(folder), "systemctl", "preset-all"])
    # without it, systemd would take each boot for the first, and apply the preset
    (folder / "etc/machine-id").write_text(f"{'1fdefa01' * 4}\n")
    (folder / "etc/hostname").write_text("host\n")
    (folder / "etc/resolv.conf").touch()  # `chroot` mounts over it


def chroot(
    layers: Sequence[Path],
    changes: Path,
    script: str,
    *,
    source: Path | None = None,
    size: str = "",
    network: bool = False,
) -> str:
    """Run a script on the layers, the uppermost first, and return its output. What it changes is in
    `changes`/upper, or in a file system of `size` that ends with it; `source` is seen there as
    /mnt. It has this machine's network, or one of its own."""
    changes.mkdir(exist_ok=True)
    environment = {
        "changes": str(changes),
        "size": size,
        "lower": ":".join(map(str, layers)),
        **{name: str(changes / name) for name in ("upper", "work", "root")},
        "source": str(source or ""),
        "run": script,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/root",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    apart = ["--mount", "--pid", "--fork", *([] if network else ["--net"])]
    return run(["unshare", *apart, "sh", "-c", _CHROOT], environment)


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    if shutil.which(command[0]) is None:
        raise NotAvailable(f"there is no {command[0]} here: run it on Debian")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stderr + done.stdout).strip().splitlines()[-40:])
        shown = " ".join(word for word in command if "\n" not in word)  # not whole scripts
        raise NotAvailable(f"{shown}: {said}")
    return done.stdout
