"""Debian 12 in a folder, with systemd and the programs that our units meet.

Rules: made once by mmdebstrap, from the machine's own apt source, into the cache folder. No service
is enabled: a test enables what it needs. ifdefault's dependencies are in a virtual environment, as
an administrator installs them; ifdefault itself isn't, since it changes: `booted` adds it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from tests.system.debian import KEYRING, NotAvailable, repository

RELEASE, PYTHON = "bookworm", "3.11"
PACKAGES = """
systemd-sysv dbus libpam-systemd iproute2 nftables iputils-ping procps kmod python3 openssh-server
ifupdown isc-dhcp-client netplan.io network-manager ufw firewalld fail2ban docker.io
""".split()
VENV = "opt/ifdefault"
SITE_PACKAGES = f"{VENV}/lib/python{PYTHON}/site-packages"
_LOCK = "requirements.lock"
_NONE_ENABLED = "etc/systemd/system-preset/00-none.preset"
_PROGRAM = f"""\
#!/{VENV}/bin/python
import sys

from ifdefault.cli.main import main

sys.exit(main())
"""


def made(cache: Path) -> Path:
    """Return the folder, made anew if what it is made of has changed."""
    folder = cache / "systemd"
    content = [RELEASE, *PACKAGES, Path(_LOCK).read_text(), Path(__file__).read_text()]
    stamp = hashlib.sha256("\n".join(content).encode()).hexdigest()
    stamp_file = cache / "systemd.stamp"
    if not (stamp_file.exists() and stamp_file.read_text() == stamp):
        stamp_file.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        _bootstrap(folder)
        _disable_services(folder)
        _install_dependencies(folder)
        stamp_file.write_text(stamp)
    return folder


def _bootstrap(folder: Path) -> None:
    source = f"deb [signed-by={KEYRING}] {repository()} {RELEASE} main"
    options = ["--mode=root", "--variant=minbase", "--format=directory", "--quiet"]
    # others may not write here
    options += [f"--include={','.join(PACKAGES)}", '--aptopt=APT::Sandbox::User "root"']
    _run(["mmdebstrap", *options, RELEASE, str(folder), source])


def _disable_services(folder: Path) -> None:
    preset = folder / _NONE_ENABLED
    preset.parent.mkdir(parents=True, exist_ok=True)
    preset.write_text("disable *\n")
    _run(["chroot", str(folder), "systemctl", "preset-all"])
    # without it, systemd would take each boot for the first, and apply the preset
    (folder / "etc/machine-id").write_text(f"{'1fdefa01' * 4}\n")
    (folder / "etc/hostname").write_text("host\n")


def _install_dependencies(folder: Path) -> None:
    """By the machine's pip, which knows where it finds packages."""
    _run(["chroot", str(folder), "python3", "-m", "venv", "--without-pip", f"/{VENV}"])
    target = ["--target", str(folder / SITE_PACKAGES), "--python-version", PYTHON]
    options = ["--only-binary=:all:", "--no-deps", "--upgrade", *target]
    _run([sys.executable, "-m", "pip", "install", "-qq", *options, *_dependencies()])
    program = folder / VENV / "bin/ifdefault"
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    (folder / "usr/local/bin/ifdefault").symlink_to(f"/{VENV}/bin/ifdefault")


def _dependencies() -> list[str]:
    """What `pip install ifdefault` would install, in the versions that are installed here."""
    found: dict[str, str] = {}
    names = ["ifdefault"]
    for name in names:
        for requirement in metadata.requires(name) or ():
            needed = re.split(r"[^\w.-]", requirement)[0]
            if "extra ==" not in requirement and needed not in found:
                with suppress(metadata.PackageNotFoundError):  # another system's
                    found[needed] = metadata.version(needed)
                    names.append(needed)
    return [f"{name}=={version}" for name, version in found.items()]


def _run(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        raise NotAvailable(f"there is no {command[0]} here: run it on Debian")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotAvailable(f"{' '.join(command)}: {(done.stderr + done.stdout).strip()}")
