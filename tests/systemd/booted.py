"""A world's host with systemd as process 1: the folder, booted by systemd-nspawn.

        this machine                          the host
    a test's files ─────────── lower ┐
    ifdefault's package ────── lower ┼ overlay /
    a release of Debian ────── lower ┤
          tmpfs, or a folder ─ upper ┘
    the world's namespace ─────────── its network

Rules: the host changes nothing here. Its processes, mounts and control groups are its own. It ends
with the process that booted it, whatever ends that.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ifdefault.lab.node import CommandFailed, Completed
from ifdefault.lab.waiting import PATIENCE_S, eventually
from ifdefault.lab.world import World
from tests.systemd.package import CHECKOUT

PACKAGING = CHECKOUT / "packaging"
CONFIG = "etc/ifdefault/ifdefault.toml"
UNITS = "etc/systemd/system"
_PACKAGED = "usr/lib/systemd/system"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = [f"PATH={_PATH}", "HOME=/root", "LANG=C.UTF-8", "SYSTEMD_COLORS=0", "COLUMNS=200"]

# In a mount namespace of its own, which ends with it. By nspawn's choice a container may not write
# below /proc/sys/net, nor call bpf(2) or landlock(7); a host may.
_BOOT = """\
set -e
[ -n "$kept" ] || mount -t tmpfs tmpfs "$here"
mkdir -p "$here/cgroup" "$here/upper" "$here/work" "$here/root"
mount -t cgroup2 cgroup2 "$here/cgroup"
mkdir -p "$here/cgroup/$name"
echo $$ >"$here/cgroup/$name/cgroup.procs"
umount "$here/cgroup"
mount -t overlay -o "lowerdir=$lower,upperdir=$here/upper,workdir=$here/work" overlay "$here/root"
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=network SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --directory="$here/root" --machine=host --register=no \\
    --keep-unit --link-journal=no --resolv-conf=off --network-namespace-path="$netns" \\
    --private-users=no --capability=all --system-call-filter='bpf @keyring perf_event_open \
    landlock_create_ruleset landlock_add_rule landlock_restrict_self' \\
    --kill-signal=SIGRTMIN+3 /lib/systemd/systemd
"""
_REMOVE_CGROUP = """\
mount -t cgroup2 cgroup2 /mnt
find "/mnt/$name" -depth -type d -exec rmdir {} +
"""


class Booted:
    """The host of a world, with a systemd of its own."""

    def __init__(self, world: World, layers: Sequence[Path], here: Path | None = None) -> None:
        """`layers`: the files that it has, the uppermost first; what it writes is kept in `here`,
        for another boot."""
        self.world = world
        self.files = world.dir / "files"  # more of its files, written before it boots
        self.lower = [self.files, *layers]
        self._console = world.dir / "console.log"
        self._kept = here is not None
        self.here = here or world.dir / "booted"
        self._cgroup = f"ifd-{world.name}"
        self._leader = 0
        self._nspawn: subprocess.Popen[str] | None = None

    # --- boot and end --------------------------------------------------------------------

    def boot(self, enable: Iterable[str] = ()) -> None:
        """Boot, and wait until all that is enabled has started, or failed."""
        self.here.mkdir(exist_ok=True)
        self.files.mkdir(exist_ok=True)
        self._enable(enable)
        environment = {
            "here": str(self.here),
            "kept": "yes" if self._kept else "",
            "name": self._cgroup,
            "lower": ":".join(map(str, self.lower)),
            "netns": f"/run/netns/{self.world['host'].netns}",
        }
        with self._console.open("w") as console:
            nspawn = subprocess.Popen(
                # the signal comes when the thread that started it ends, too: pytest's only one
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", _BOOT],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                text=True,
            )
        self.world.remember(nspawn)
        self._nspawn = nspawn
        self._leader = eventually(lambda: self._find_leader(nspawn), what="systemd starts")
        self.world.run_dir = self.path("run/ifdefault")
        eventually(self._is_up, what="the host is up")

    def _enable(self, units: Iterable[str]) -> None:
        """As `systemctl enable` does, which can't run on files that aren't mounted yet."""
        for unit in units:
            places = (folder / path / unit for folder in self.lower for path in (UNITS, _PACKAGED))
            file = next(place for place in places if place.exists())
            for key, names in re.findall(r"(?m)^(WantedBy|Alias)=(.*)$", file.read_text()):
                for name in names.split():
                    link = f"{name}.wants/{unit}" if key == "WantedBy" else name
                    path = self.files / UNITS / link
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.symlink_to(f"/{file.relative_to(file.parents[3])}")

    def _find_leader(self, nspawn: subprocess.Popen[str]) -> int:
        """The host's process 1, as it is known here."""
        if nspawn.poll() is not None:
            raise AssertionError(f"systemd-nspawn has ended: {self._console.read_text()}")
        children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split()
        for child in children:
            with suppress(FileNotFoundError, ProcessLookupError):  # it ends just now
                status = Path(f"/proc/{child}/status").read_text()
                if any(
                    line.split()[-1:] == ["1"] for line in status.splitlines() if "NSpid" in line
                ):
                    return int(child)
        return 0

    def _is_up(self) -> bool:
        done = self.run(["systemctl", "is-system-running"], check=False)
        return done.stdout.strip() in ("running", "degraded")

    def power_off(self) -> None:
        """As its administrator does; what it has written to `here` stays."""
        assert self._nspawn is not None
        self.systemctl("poweroff", check=False)  # the answer may not be given any more
        self._nspawn.wait(PATIENCE_S)

    def remove(self) -> None:
        """After its world has ended its processes."""
        environment = os.environ | {"name": self._cgroup}
        command = ["unshare", "--mount", "sh", "-c", _REMOVE_CGROUP]
        subprocess.run(command, env=environment, capture_output=True, check=False)

    # --- what a test does there ----------------------------------------------------------

    def path(self, name: str) -> Path:
        """A file of the booted host, as it is reached from here."""
        return Path(f"/proc/{self._leader}/root") / name

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        stdin: str | None = None,
        timeout_s: float = 120.0,
    ) -> Completed:
        """Run a command there, as root, outside of any unit."""
        enter = ["nsenter", "-t", str(self._leader), *"-m -u -i -n -p -C -r -w".split()]
        done = subprocess.run(
            [*enter, "env", "-i", *_ENVIRONMENT, *argv],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode:
            raise CommandFailed("host", argv, done)
        return done

    def shell(self, script: str, *, check: bool = True) -> str:
        return self.run(["sh", "-e", "-c", script], check=check).stdout

    def in_unit(self, *argv: str, check: bool = True) -> Completed:
        """Run a command in a unit of its own, as in a login: it has a control group there."""
        return self.run(
            ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", *argv], check=check
        )

    def ifdefault(self, *arguments: str, check: bool = True) -> Completed:
        return self.run(["ifdefault", *arguments], check=check)

    def systemctl(self, *arguments: str, check: bool = True) -> Completed:
        return self.run(["systemctl", *arguments], check=check)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit: systemd's names, such as ActiveState or MainPID."""
        rows = self.systemctl("show", "-p", ",".join(properties), unit).stdout.splitlines()
        return dict(row.split("=", 1) for row in rows)

    def state(self, unit: str) -> str:
        return self.show(unit, "ActiveState")["ActiveState"]

    def main_pid(self, unit: str) -> int:
        """The process of a service, by its id there; 0 if it has none."""
        return int(self.show(unit, "MainPID")["MainPID"])

    def await_state(self, unit: str, wanted: str = "active") -> None:
        try:
            eventually(lambda: self.state(unit) == wanted, what=f"{unit} is {wanted}")
        except TimeoutError as error:
            error.add_note(self.systemctl("status", "-n", "50", unit, check=False).stdout)
            raise

    def journal(self, unit: str = "") -> list[str]:
        """The messages of a unit, or of all, the oldest first."""
        of_unit = ["-u", unit] if unit else []
        return self.run(["journalctl", "-q", "-o", "cat", *of_unit]).stdout.splitlines()

    def dump(self) -> str:
        """For a failure report."""
        commands = "systemctl --failed; systemctl list-jobs; journalctl -q -n 200 -o short-precise"
        text = self.shell(f"exec 2>&1; {commands}", check=False) if self._leader else ""
        return f"{text}\n--- console\n{self._console.read_text()}"


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        program, secret = text.startswith("#!"), path.suffix == ".nmconnection"
        path.chmod(0o755 if program else 0o600 if secret else 0o644)
