"""What becomes of an exception that nobody expected: in engine, frontend and DNS server alike.

Rules:
- In what has to last (a task of `start`, a reader, a timer, a signal handler) it ends the process.
  Its engine, or systemd, starts another, with growing pauses.
- In what was asked for from outside (a probe, a query, a command, a look at the kernel), it is the
  answer to that alone, by `log.exception`; the process goes on.
- Either way it is logged, with its traceback. From the same place it is counted from then on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ifdefault.ipc import log

T = TypeVar("T")


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run in the background. An exception ends the process."""
    task = asyncio.create_task(work)
    task.add_done_callback(_raise)
    return task


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks of `start`, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _raise(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()):
        context = {"message": "internal error", "exception": error}
        task.get_loop().call_exception_handler(context)


def guard(fail: Callable[[BaseException], None]) -> None:
    """From now on, what nobody caught on this loop is logged, and passed to `fail`, which ends the
    process."""

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception") or RuntimeError(str(context.get("message")))
        log.exception(error, "this process ends", fatal=True)
        fail(error)

    asyncio.get_running_loop().set_exception_handler(handle)


def run(work: Coroutine[Any, Any, int]) -> int:
    """Run a process: the exit status of `work`, or EX_SOFTWARE (sysexits.h) after an exception."""

    async def guarded() -> int:
        over: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def fail(_: BaseException) -> None:
            if not over.done():
                over.set_result(os.EX_SOFTWARE)

        guard(fail)
        task = start(work)
        await asyncio.wait([task, over], return_when=asyncio.FIRST_COMPLETED)
        return over.result() if over.done() else task.result()

    try:
        return asyncio.run(guarded())
    except Exception as error:
        log.exception(error, "this process ends", fatal=True)
        return os.EX_SOFTWARE
