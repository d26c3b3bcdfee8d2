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
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests import systemd
from tests.system import GUEST, chosen, debian, guest
from tests.system.summary import Outcome, summary
from tests.systemd import package

CACHE = Path(".system")
PATIENCE_S = 870.0  # for each part
SYSTEMD, SUITES = "systemd", "suites"  # with tests of their own in tests/
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OPTIONS = ("-p", "no:cacheprovider", "--color=no", "--tb=short", "--durations=10")

Say = Callable[[str], None]  # print a line of a part's output
Part = Callable[[Say], str]  # fetch what its tests need and run them; an exit status, or an error


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
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"):  # see _prepare
        os.environ.pop(name, None)
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        groups = _parts(options.only or parts, arguments)
        outcomes = [outcome for group in groups for outcome in _run(group)]
    print(*summary(outcomes), sep="\n", flush=True)
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def _parts(only: list[str], arguments: list[str]) -> list[dict[str, Part]]:
    """By name; one that has none of the tests that are named isn't run. First those that run here,
    while kernels are fetched, and then the guests, which need all processors for minutes."""
    named = [word for word in arguments if "tests/" in word]
    others = [word for word in arguments if word not in named]
    of_parts = {
        part: [word for word in named if f"tests/{part}" in word] for part in (SYSTEMD, SUITES)
    }
    in_guests = [word for word in named if not any(word in words for words in of_parts.values())]
    here: dict[str, Part] = {
        part: partial(_test_here, part, [*(words or [f"tests/{part}"]), *others])
        for part, words in of_parts.items()
        if part in only and (words or not named)
    }
    in_kernels = {
        release: [*(in_guests or chosen.arguments(release)), *others]
        for release in debian.SERIES
        if release in only and (in_guests or not named)
    }
    pool = ThreadPoolExecutor()
    guests: dict[str, Part] = {
        release: partial(_test_kernel, pool.submit(_prepare, release, tests), tests)
        for release, tests in in_kernels.items()
    }
    return [here, guests]


def _run(parts: dict[str, Part]) -> list[Outcome]:
    """Run the parts side by side."""
    outcomes: dict[str, Outcome] = {}

    def run(name: str, part: Part) -> None:
        said: list[str] = []
        start_s = time.monotonic()

        def say(line: str) -> None:
            said.append(line)
            _show(name, line)

        try:
            status = part(say)
        except debian.NotAvailable as error:
            status = str(error)
        outcomes[name] = Outcome(name, status, time.monotonic() - start_s, said)
        say(outcomes[name].result)

    # daemons: an interrupt ends us at once, and what they run with us
    threads = [threading.Thread(target=run, args=item, daemon=True) for item in parts.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [outcomes[name] for name in parts]


_printing = threading.Lock()


def _show(name: str, line: str) -> None:
    with _printing:
        print(f"{name:>8} | {line}", flush=True)


def _limited(seconds: float) -> list[str]:
    """Interrupted, pytest still reports what has failed until then."""
    return ["timeout", "--signal=INT", str(seconds)]


def _test_here(name: str, arguments: list[str], say: Say) -> str:
    """On this machine, in network namespaces."""
    environment = {}
    if name == SYSTEMD:
        package.make(CACHE.resolve())
        environment = {systemd.CACHE: str(CACHE.resolve())}
    child = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "INT", *_limited(PATIENCE_S)),
            *(sys.executable, "-m", "pytest", "-v", "-n", "3", "--dist", "worksteal"),
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
        say(line.rstrip())
    return str(child.wait())


def _test_kernel(prepared: Future[debian.Kernel], arguments: list[str], say: Say) -> str:
    kernel = prepared.result()
    say(f"booting {kernel.version} (Debian's {kernel.release})")
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
        show=say,
        patience_s=PATIENCE_S,
    )
    if not outcome.passed:
        for line in outcome.console.splitlines():
            say(f"console: {line}")
    return outcome.status


_compiling = threading.Lock()


def _prepare(release: str, arguments: list[str]) -> debian.Kernel:
    """Fetch a kernel, and collect its tests here first: a test that isn't there shows at once, and
    what Python compiles, for which guests have no room, needn't be compiled at each start there."""
    kernel = debian.kernel(release, CACHE.resolve())
    with _compiling:
        _here("compileall", "-q", "src")
        _here("pytest", "--collect-only", "-q", *arguments)
    return kernel


def _here(*module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *module],
        env=os.environ | {GUEST: "none"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise debian.NotAvailable(f"python -m {module[0]} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
