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


def test_a_share_of_the_time_is_all_that_they_get() -> None:
    """A socket is always ready; at each call, all calls before took no more than the share."""
    share, calls = 0.1, list[tuple[float, float]]()  # since the start, and how long it took

    async def main() -> None:
        poll, start_s = FairPoll(_TURN_S, share), time.monotonic()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.send(b"x")

            def call() -> None:
                called_s = now = time.monotonic()
                while now < called_s + _LONG_S:
                    now = time.monotonic()
                calls.append((called_s - start_s, now - called_s))

            poll.add(ours, call)
            while len(calls) < 20:
                await asyncio.sleep(0.001)
            poll.remove(ours)
        poll.close()

    asyncio.run(main())
    used_s = 0.0
    for at_s, took_s in calls:
        assert used_s <= share * at_s + 2 * _TURN_S
        used_s += took_s
