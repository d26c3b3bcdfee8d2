"""One attempt to send a message: runs a delivery, and waits for it, up to a limit.

Rules: an attempt always has an outcome. The message may have arrived if its delivery ended after it
began to send.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

from ifdefault.ipc import codec, privileges
from ifdefault.ipc.child import environment, python
from ifdefault.model.errors import reason
from ifdefault.monitor.notify.delivery import LIMIT_S, Delivery, Outcome, Stage, read_report

KEEP = (privileges.KEEP, privileges.KEEP)  # the user of this process
_LONGEST = 64 * 1024


async def attempt(
    delivery: Delivery, user: tuple[int, int] = KEEP, limit_s: float = LIMIT_S
) -> Outcome:
    """Send it, as (uid, gid)."""
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *python("ifdefault.monitor.notify.deliver", *user),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment(),
            cwd="/",
            start_new_session=True,
            limit=_LONGEST,
        )
    )
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:  # a start that is interrupted would leave the process running
        await _end(await starting)
        raise
    except OSError as error:  # out of processes or files
        return Outcome("unreachable", f"can't be started: {reason(error)}")
    stage = Stage("starting")
    try:
        async with asyncio.timeout(limit_s):
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(ConnectionError):
                process.stdin.write(codec.write(codec.to_json(delivery)))
                await process.stdin.drain()
                process.stdin.close()
            async for line in process.stdout:
                report = read_report(codec.read(line))
                if isinstance(report, Outcome):
                    return report
                stage = report
        why = "it ended early"
    except TimeoutError:
        why = f"no answer in {limit_s:g} s"
    except ValueError:  # too long, or no report
        why = "it printed something else"
    finally:
        ending = asyncio.ensure_future(_end(process))
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending
            raise
    return Outcome("unknown" if stage.sends else "unreachable", f"{why}, while {stage.text}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill whatever is left of it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    with suppress(ConnectionError, ValueError):  # ValueError: a line that is too long
        await process.stdin.wait_closed()
    while await process.stdout.read(_LONGEST):
        pass  # to its end, which closes the transport
    await process.wait()
