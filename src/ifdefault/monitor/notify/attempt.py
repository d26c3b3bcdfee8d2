"""One attempt to send a message: has a delivery do it, and waits for that, up to a limit.

Rules: an attempt always has an outcome. The message may have arrived if its delivery ended after it
began to send.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from ifdefault.ipc import codec
from ifdefault.monitor.notify.deliver import Deliverer
from ifdefault.monitor.notify.delivery import Delivery, Outcome, Stage, read_report

_LONGEST = 64 * 1024


async def attempt(delivery: Delivery, deliverer: Deliverer) -> Outcome:
    sock = deliverer.open()
    stage, writer = Stage("starting"), None
    try:
        async with asyncio.timeout(delivery.limit_s):
            reader, writer = await asyncio.open_unix_connection(sock=sock, limit=_LONGEST)
            writer.write(codec.write(codec.to_json(delivery)))
            writer.write_eof()
            async for line in reader:
                report = read_report(codec.read(line))
                if isinstance(report, Outcome):
                    return report
                stage = report
        why = "it ended early"
    except TimeoutError:
        why = f"no answer in {delivery.limit_s:g} s"
    except OSError as error:
        why = f"it ended early ({error.strerror})"
    except ValueError:  # too long, or no report
        why = "it said something else"
    finally:
        if writer is None:
            sock.close()
        else:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
    return Outcome("unknown" if stage.sends else "unreachable", f"{why}, while {stage.text}")
