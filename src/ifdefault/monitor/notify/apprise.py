"""Sends a message by the program `apprise`, to what its config file lists.

Rules: it is run without privileges, with an empty environment; message and secrets are not on its
command line. What it prints is read up to a limit. It sends as routing has it, since it can't be
bound to an address.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from ifdefault.ipc.child import PATH, find_program
from ifdefault.model.config import APPRISE_MISSING, APPRISE_REMEDY, Severity
from ifdefault.model.errors import reason
from ifdefault.monitor.notify.connect import one_line
from ifdefault.monitor.notify.delivery import Delivery, Refused, Stage, Tell

PROGRAM = "apprise"
_LONGEST_OUTPUT = 64 * 1024
_ERROR = " - ERROR - "  # after the time, in its log
_TYPE: dict[Severity, str] = {"info": "info", "warning": "warning", "error": "failure"}


def send(delivery: Delivery, tell: Tell) -> str:
    config, message = delivery.config, delivery.message
    try:
        Path(config.apprise).open("rb").close()
    except OSError as error:
        raise Refused(f"{config.apprise}: can't be read: {reason(error)}") from None
    if (program := find_program(PROGRAM)) is None:
        raise Refused(f"{APPRISE_MISSING}; {APPRISE_REMEDY}")
    command = [program, "--config", config.apprise, "--title", message.subject]
    command += ["--notification-type", _TYPE[message.severity]]
    environment = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": "/nonexistent"}
    tell(Stage("running apprise", sends=True))
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd="/",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(message.text.encode())
    process.stdin.close()
    output = process.stdout.read(_LONGEST_OUTPUT).decode("utf-8", "replace")
    process.stdout.close()  # whatever more it prints ends it
    status = process.wait()
    if status:
        raise Refused(one_line(f"apprise: exit status {status}: {_why(output)}"))
    return "apprise: exit status 0"


def _why(output: str) -> str:
    """The line that says most: the last error, before the hints how the program is used."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.partition(_ERROR)[2] for line in lines if _ERROR in line]
    return (errors or lines or ["it printed nothing"])[-1]
