"""A delivery: the process that sends one message to one notifier.

`python -m ifdefault.monitor.notify.deliver UID GID`, started by `monitor.notify.attempt`.

Rules: it drops its privileges before it reads anything, after its imports. It is killed at its time
limit, and with its parent. An exception that nobody expected is an outcome as well.
"""

from __future__ import annotations

import resource
import signal
import smtplib
import sys
from types import MappingProxyType
from typing import NoReturn

from ifdefault.ipc import codec, privileges
from ifdefault.model.errors import internal
from ifdefault.monitor.notify import apprise, http, mail
from ifdefault.monitor.notify.connect import one_line, words
from ifdefault.monitor.notify.delivery import (
    Delivery,
    Outcome,
    Refused,
    Report,
    Stage,
    Unknown,
    encode_report,
    read_delivery,
)

_LIMITS = MappingProxyType({resource.RLIMIT_DATA: 1 << 30})  # more than apprise takes
_LONGEST = 16 * 1024 * 1024


def main() -> NoReturn:
    uid, gid = map(int, sys.argv[1:])
    "localhost".encode("idna")  # loads the codec: its module may not be readable any more later
    privileges.drop(uid, gid, limits=_LIMITS, parent_death=signal.SIGKILL)
    delivery = read_delivery(codec.read(sys.stdin.buffer.read(_LONGEST)))
    _print(deliver(delivery))
    sys.exit(0)


def deliver(delivery: Delivery) -> Outcome:
    """Send it; say how that ended."""
    stage, sent = Stage("starting"), False

    def tell(new: Stage) -> None:
        nonlocal stage, sent
        stage, sent = new, sent or new.sends
        _print(new)

    config = delivery.config
    try:
        if config.mail:
            said = mail.send(delivery, tell)
        elif config.apprise:
            said = apprise.send(delivery, tell)
        elif config.webhook or config.webhook_file:
            said = http.send_webhook(delivery, tell)
        else:
            said = http.send_ntfy(delivery, tell)
    except Refused as error:
        return Outcome("refused", str(error))
    except Unknown as error:
        return Outcome("unknown", str(error))
    except (OSError, smtplib.SMTPException) as error:
        text = one_line(f"{stage.text}: {words(error)}")
        return Outcome("unknown" if sent else "unreachable", text)
    except Exception as error:  # noqa: BLE001  the libraries have many
        return Outcome("unknown" if sent else "refused", one_line(internal(error)))
    return Outcome("delivered", one_line(said))


def _print(report: Report) -> None:
    sys.stdout.buffer.write(encode_report(report))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
