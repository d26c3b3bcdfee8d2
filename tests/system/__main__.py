"""`./dev system`: what others make of our DNS, and network tests on the kernels of Debian releases.

Rules: the former run here, where they take a minute; the latter in qemu, all releases side by side.
An argument that names a test leaves out all others.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.system import GUEST, chosen, debian, guest

CACHE = Path(".system")
SUITES = "tests/suites"
PATIENCE_S = 870.0  # for each guest; they run side by side
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./dev system",
        description=__doc__.partition("\n")[0],
        epilog="other arguments go to pytest",
    )
    parser.add_argument(
        "--release", action="append", choices=debian.SERIES, help="of Debian (all that we know)"
    )
    options, arguments = parser.parse_known_args()
    if platform.machine() != "x86_64":
        print("./dev system: runs on x86-64 only", file=sys.stderr)
        return 1
    named = [word for word in arguments if "tests/" in word]
    here = [word for word in named if SUITES in word]
    passed = True
    if here or not named:
        others = [word for word in arguments if word not in named]
        passed = _test_here([*(here or [SUITES]), *others])
    if here:
        return 0 if passed else 1
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            releases = options.release or list(debian.SERIES)
            kernels = [debian.kernel(release, CACHE.resolve()) for release in releases]
        except debian.NotAvailable as error:
            print(f"./dev system: {error}", file=sys.stderr)
            return 1
        if not named:
            arguments = [*chosen.arguments(), *arguments]
        if not _collected(arguments):
            return 1
        return 0 if _test_each(kernels, arguments) and passed else 1


def _test_here(arguments: list[str]) -> bool:
    """Run tests on this machine's own kernel."""
    command = [sys.executable, "-m", "pytest", "--durations=5", *arguments]
    done = subprocess.run(command, check=False)
    return done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


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


def _test_each(kernels: list[debian.Kernel], arguments: list[str]) -> bool:
    """Test the kernels side by side."""
    passed = []

    def test(kernel: debian.Kernel) -> None:
        if _test(kernel, arguments):
            passed.append(kernel)

    # daemons: an interrupt ends us at once, and the guests with us
    threads = [threading.Thread(target=test, args=[kernel], daemon=True) for kernel in kernels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(passed) == len(kernels)


_printing = threading.Lock()


def _test(kernel: debian.Kernel, arguments: list[str]) -> bool:
    def show(line: str) -> None:
        with _printing:
            print(f"{kernel.series:>4} | {line}", flush=True)

    start_s = time.monotonic()
    show(f"booting {kernel.version} (Debian's {kernel.release})")
    outcome = guest.run(
        kernel,
        # interrupted, pytest still reports what has failed until then
        [
            *("timeout", "--signal=INT", str(PATIENCE_S - 60)),
            *(".venv/bin/pytest", "-p", "no:cacheprovider", "--color=no", "--tb=short", "-v"),
            *("--durations=10", *arguments),
        ],
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
