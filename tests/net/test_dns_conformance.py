"""Each case of dns_cases, asked by dig and kdig over both providers.

client ── core ─┬─ isp-a ── wan0 ┐
                └─ isp-b ── wan1 ┴ host     a frontend that serves dns_cases.zone()
"""

from __future__ import annotations

import asyncio

import pytest

from ifdefault.lab.world import World
from tests.net.conftest import LabWorld
from tests.net.dns_cases import B6, CASES, A, Case, told, zone
from tests.net.served import serving


@pytest.mark.parametrize("address", [A, B6])
def test_what_real_clients_see(lab_world: LabWorld, address: str) -> None:
    world = lab_world("two")
    answered = asyncio.run(_ask_all(world, address))
    wrong = [
        f"{case.what}: {case.command}\nexpected {case.expected}\ngot      {told(output)}\n{output}"
        for case, output in answered
        if not case.fits(output)
    ]
    assert not wrong, "\n\n".join(wrong)


async def _ask_all(world: World, address: str) -> list[tuple[Case, str]]:
    async with serving(world) as server:
        server.publish(zone())
        return [(case, await server.ask(*case.argv(address))) for case in CASES]
