"""Background tasks whose errors are fatal."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


def start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run in the background. An error is passed to the loop's exception handler, which ends the
    engine."""
    task = asyncio.create_task(work)
    task.add_done_callback(_raise)
    return task


def _raise(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        context = {"message": "internal error", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
