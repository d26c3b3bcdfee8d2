"""FairPoll: all sockets are served, and none blocks the loop."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack

from ifdefault.ipc.fair_poll import IDLE, READ, WRITE, FairPoll

_TURN_S, _LONG_S = 0.002, 0.001


def test_all_get_theirs_while_others_wait() -> None:
    """Thirty sockets are always ready, and a turn has time for two or three of them."""

    async def main() -> None:
        turns, calls = FairPoll(_TURN_S), [0] * 30
        with ExitStack() as stack:
            for n in range(len(calls)):
                ours, theirs = map(stack.enter_context, socket.socketpair())
                theirs.send(b"x")

                def call(n: int = n) -> None:
                    calls[n] += 1
                    end_s = time.monotonic() + _LONG_S
                    while time.monotonic() < end_s:
                        pass

                turns.add(ours, call)
            loops = 0
            while min(calls) < 2:
                await asyncio.sleep(0)  # one round of the loop
                loops += 1
                assert sum(calls) <= 3 * (loops + 1)
            assert max(calls) <= min(calls) + 2
            turns.close()

    asyncio.run(main())


def test_what_a_socket_is_called_for() -> None:
    async def main() -> None:
        turns, calls = FairPoll(_TURN_S), list[int]()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            turns.add(ours, lambda: calls.append(1))

            async def called() -> bool:
                calls.clear()
                for _ in range(5):
                    await asyncio.sleep(0)
                return bool(calls)

            assert not await called()
            theirs.send(b"x")
            assert await called()
            turns.change(ours, IDLE)
            assert not await called()
            turns.change(ours, WRITE)
            assert await called()
            turns.change(ours, READ)
            ours.recv(1)
            assert not await called()
            turns.remove(ours)
            turns.remove(ours)
            theirs.send(b"x")
            assert not await called()
        turns.close()

    asyncio.run(main())
