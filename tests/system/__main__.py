"""`./dev system`: what needs a kernel of Debian's, in qemu, or a systemd, in a folder; and what
others make of our DNS."""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests import systemd
from tests.system import GUEST, chosen, debian, guest
from tests.systemd import package

CACHE = Path(".system")
PATIENCE_S = 870.0  # for each part
SYSTEMD, SUITES = "systemd", "suites"  # with tests of their own in tests/
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OPTIONS = ("-p", "no:cacheprovider", "--color=no", "--tb=short", "--durations=10")

Part = Callable[[], bool]  # runs its tests; whether they passed


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./dev system",
        description=__doc__,
        epilog="other arguments go to pytest; tests that are named run where they belong",
    )
    parts = [*debian.SERIES, SYSTEMD, SUITES]
    parser.add_argument("--only", action="append", choices=parts, help="a part")
    options, arguments = parser.parse_known_args()
    if platform.machine() != "x86_64":
        print("./dev system: runs on x86-64 only", file=sys.stderr)
        return 1
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            groups = _parts(options.only or parts, arguments)
            passed = [_run(group) for group in groups]
            return 0 if all(passed) else 1
        except debian.NotAvailable as error:
            print(f"./dev system: {error}", file=sys.stderr)
            return 1


def _parts(only: list[str], arguments: list[str]) -> tuple[list[Part], list[Part]]:
    """Fetch what they need; a part that has none of the tests that are named isn't run. First
    those that run here, and then the guests, which need all processors for minutes."""
    named = [word for word in arguments if "tests/" in word]
    others = [word for word in arguments if word not in named]
    here = {part: [word for word in named if f"tests/{part}" in word] for part in (SYSTEMD, SUITES)}
    in_guests = [word for word in named if not any(word in words for words in here.values())]
    parts: list[Part] = []
    guests: list[Part] = []
    if in_guests or not named:
        of_guests = [*(in_guests or chosen.arguments()), *others]
        kernels = [debian.kernel(name, CACHE.resolve()) for name in debian.SERIES if name in only]
        if kernels and not _collected(of_guests):
            return [lambda: False], []
        guests = [partial(_test_kernel, kernel, of_guests) for kernel in kernels]
    for part, words in here.items():
        if part in only and (words or not named):
            environment = {}
            if part == SYSTEMD:
                package.make(CACHE.resolve())
                environment = {systemd.CACHE: str(CACHE.resolve())}
            arguments = [*(words or [f"tests/{part}"]), *others]
            parts.append(partial(_test_here, part, environment, arguments))
    return parts, guests


def _collected(arguments: list[str]) -> bool:
    """Collect the tests here first: what pytest compiles needn't be compiled in each guest, and
    a test that isn't there shows at once."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments],
        env=os.environ | {GUEST: "none"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
    return done.returncode == 0


def _run(parts: list[Part]) -> bool:
    """Run the parts side by side."""
    passed = []

    def run(part: Part) -> None:
        if part():
            passed.append(part)

    # daemons: an interrupt ends us at once, and what they run with us
    threads = [threading.Thread(target=run, args=[part], daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(passed) == len(parts)


_printing = threading.Lock()


def _show(name: str, line: str) -> None:
    with _printing:
        print(f"{name:>7} | {line}", flush=True)


def _limited(seconds: float) -> list[str]:
    """Interrupted, pytest still reports what has failed until then."""
    return ["timeout", "--signal=INT", str(seconds)]


def _test_here(name: str, environment: dict[str, str], arguments: list[str]) -> bool:
    """On this machine, in network namespaces."""
    start_s = time.monotonic()
    child = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "INT", *_limited(PATIENCE_S)),
            *(sys.executable, "-m", "pytest", "-n", "3", "--dist", "worksteal"),
            *_OPTIONS,
            *arguments,
        ],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert child.stdout is not None
    for line in child.stdout:
        _show(name, line.rstrip())
    passed = child.wait() == 0
    _show(name, f"{'passed in' if passed else 'failed after'} {time.monotonic() - start_s:.0f} s")
    return passed


def _test_kernel(kernel: debian.Kernel, arguments: list[str]) -> bool:
    def show(line: str) -> None:
        _show(kernel.series, line)

    start_s = time.monotonic()
    show(f"booting {kernel.version} (Debian's {kernel.release})")
    outcome = guest.run(
        kernel,
        [*_limited(PATIENCE_S - 60), ".venv/bin/pytest", "-v", *_OPTIONS, *arguments],
        CACHE / f"guest-{kernel.release}",
        environment={
            GUEST: kernel.series,
            "PATH": _PATH,
            "HOME": "/root",
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        show=show,
        patience_s=PATIENCE_S,
    )
    took_s = time.monotonic() - start_s
    if outcome.passed:
        show(f"passed in {took_s:.0f} s")
    else:
        for line in outcome.console.splitlines():
            show(f"console: {line}")
        show(f"failed after {took_s:.0f} s: {outcome.status}")
    return outcome.passed


if __name__ == "__main__":
    sys.exit(main())
