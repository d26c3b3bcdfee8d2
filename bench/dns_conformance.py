"""`dns_conformance`: the name server's answers to dig and kdig, expected and received.

Rules: the cases are those of the test (tests/net/dns_cases.py), each sent to every address of the
host. A row shows one answer, or all where they differ.
"""

from __future__ import annotations

import asyncio

from bench.clock import log
from bench.results import Figure, Report, Table
from ifdefault.lab.topology import load
from ifdefault.lab.world import World
from tests.net.dns_cases import ADDRESSES, CASES, Case, told, zone
from tests.net.served import serving

_HOW = """\
The lab's world `two`: a frontend serves one zone on the host's four addresses, and a client queries
each of them with `dig` and `kdig`, through both providers. An answer in one line: status, flags
except QR, records by type, transport if it isn't UDP, EDNS with its flags and options. The cases
from `dns` to `signed` are those of ednscomp.isc.org (DNS flag day 2019), those named `bufsize` of
flag day 2020."""


def run() -> Report:
    log(f"{len(CASES)} cases at {len(ADDRESSES)} addresses")
    with World.up(load("two")) as world:
        outputs = asyncio.run(_ask(world))
    fit = sum(case.fits(output) for case in CASES for output in outputs[case.what])
    asked = len(CASES) * len(ADDRESSES)
    rows = tuple(
        (
            case.what,
            f"`{_command(case)}`",
            case.expected,
            _received(case, outputs),
            _difference(case, outputs),
        )
        for case in CASES
    )
    heads = ("case", "command", "expected", "received", "")
    return Report(
        "DNS conformance",
        _HOW,
        (Figure(f"answers as expected, of {asked}", fit, target=asked, at_least=True),),
        (Table("All cases", heads, rows),),
        {case.what: list(map(told, outputs[case.what])) for case in CASES},
    )


async def _ask(world: World) -> dict[str, list[str]]:
    """What dig or kdig printed, by case, for each address."""
    async with serving(world) as server:
        server.publish(zone())
        return {
            case.what: [await server.ask(*case.argv(address)) for address in ADDRESSES]
            for case in CASES
        }


def _received(case: Case, outputs: dict[str, list[str]]) -> str:
    return " / ".join(dict.fromkeys(map(told, outputs[case.what])))


def _difference(case: Case, outputs: dict[str, list[str]]) -> str:
    return "" if all(map(case.fits, outputs[case.what])) else "**differs**"


def _command(case: Case) -> str:
    return case.command.replace("SERVER", "@ADDRESS")
