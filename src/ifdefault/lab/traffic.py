"""Clients: `python -m ifdefault.lab.traffic` makes many attempts of many kinds, and counts them.

Rules: each attempt has exactly one outcome: answered, hung (no answer in time), wrong (another
answer, or from another address), or an error. Each is a new flow. Only the standard library, except
for QUIC.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING

from ifdefault.lab.attempts import KINDS, Attempt, Wrong

if TYPE_CHECKING:
    from ifdefault.lab.node import Node


@dataclass(frozen=True, slots=True)
class Tally:
    """The outcomes of all attempts of one kind to one target."""

    kind: str
    target: str
    tried: int
    answered: int
    hung: int = 0
    wrong: int = 0
    errors: tuple[tuple[str, int], ...] = ()

    @property
    def ok(self) -> bool:
        return self.answered == self.tried


def measure(
    node: Node,
    kinds: Sequence[str],
    targets: Iterable[str],
    *,
    count: int = 20,
    concurrency: int = 100,
    timeout_s: float = 2.0,
    sources: Iterable[str] = (),
) -> tuple[Tally, ...]:
    """Run the clients in a node; `count` attempts for each kind and target, all at once."""
    command = [sys.executable, "-m", "ifdefault.lab.traffic", *targets]
    command += [f"--kind={kind}" for kind in kinds] + [f"--source={source}" for source in sources]
    command += [f"--count={count}", f"--concurrency={concurrency}", f"--timeout={timeout_s}"]
    # every attempt may time out
    limit_s = 30 + timeout_s * (2 + count / concurrency) * len(kinds)
    return parse(node.run(command, timeout_s=limit_s).stdout)


def parse(text: str) -> tuple[Tally, ...]:
    """Parse the output of this program."""
    return tuple(
        Tally(**row | {"errors": tuple((what, n) for what, n in row["errors"])})
        for row in json.loads(text)
    )


async def send(
    kind: str, target: str, count: int, concurrency: int, timeout_s: float, sources: Sequence[str]
) -> Tally:
    """Make `count` attempts of one kind to one target, `concurrency` at a time."""
    outcomes: Counter[str] = Counter()
    pending = iter(islice(cycle(sources or [""]), count))

    async def work() -> None:
        for source in pending:
            outcomes[await try_once(KINDS[kind], target, source, timeout_s)] += 1

    await asyncio.gather(*(work() for _ in range(min(count, concurrency))))
    answered, hung, wrong = (outcomes.pop(key, 0) for key in ("answered", "hung", "wrong"))
    errors = tuple(sorted(outcomes.items()))
    return Tally(kind, target, count, answered, hung, wrong, errors)


async def try_once(attempt: Attempt, target: str, source: str, timeout_s: float) -> str:
    """Return the outcome of one attempt: answered, hung, wrong, or an error's text."""
    try:
        async with asyncio.timeout(timeout_s):
            await attempt(target, source)
    except TimeoutError:  # ETIMEDOUT too
        return "hung"
    except Wrong:
        return "wrong"
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return "answered"


async def send_all(
    kinds: Sequence[str],
    targets: Sequence[str],
    count: int,
    concurrency: int,
    timeout_s: float,
    sources: Sequence[str],
) -> list[Tally]:
    """All kinds to all targets at once; a source is used for targets of its own family."""
    return await asyncio.gather(
        *(
            send(kind, target, count, concurrency, timeout_s, _of_family(target, sources))
            for kind in kinds
            for target in targets
        )
    )


def _of_family(target: str, sources: Sequence[str]) -> list[str]:
    return [source for source in sources if (":" in source) == (":" in target)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="+", metavar="ADDRESS")
    parser.add_argument("--kind", action="append", choices=sorted(KINDS), required=True)
    parser.add_argument("--source", action="append", default=[], metavar="ADDRESS")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--timeout", type=float, default=2.0, metavar="SECONDS")
    options = parser.parse_args()
    # every attempt needs a file descriptor
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    limits = (options.count, options.concurrency, options.timeout)
    tallies = asyncio.run(send_all(options.kind, options.targets, *limits, options.source))
    print(json.dumps([asdict(tally) for tally in tallies]))


if __name__ == "__main__":
    main()
