"""Collects the parts of a bug report, and makes each of them fit to be sent.

    parts ──> read ──> secrets out ──> anonymized, if wanted ──> files of the archive

Rules: all secrets are known before the first text is shown. What is missing, and why, is part of
the report.
"""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ifdefault import __version__
from ifdefault.host.bug_report.anonymize import Anonymizer
from ifdefault.host.bug_report.parts import Missing, Output, Part, configs_in, variables
from ifdefault.host.bug_report.redaction import Secrets
from ifdefault.model.errors import internal
from ifdefault.model.text import escaped_lines

CONFIG, RECORD, README = "config/ifdefault.toml", "record.jsonl", "README.txt"
_UNIT_FILES = "systemd/unit-files.txt"
_DOMAIN = re.compile(r"(?<![\w./@-])(?:\*\.)?((?:[\w-]+\.)+[a-z][a-z-]+)(?![\w./-])")
_URL_HOST = re.compile(r"://(?:[^/@\s\"']*@)?((?:[\w-]+\.)+[a-z][a-z-]+)")
_MAIL = re.compile(r"[\w.+-]+@((?:[\w-]+\.)+[a-z][a-z-]+)")
_SHORTEST_HOST = 4  # a host's name that is shorter may be any word


@dataclass(slots=True)
class Report:
    """`files`: names and texts, in the order of the archive; `left_out`: what, and why; `notes`:
    what is in it, but isn't complete."""

    files: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def collect(
    parts: Iterable[Part],
    record: Callable[[], str] | None,
    *,
    anonymize: bool,
    left_out: Mapping[str, str],
    at: float,
) -> Report:
    """`record`: returns a recording, or raises Missing; `left_out`: what isn't wanted."""
    report, read = Report(left_out=dict(left_out)), {}
    for part in parts:
        try:
            read[part.name] = part.read()
        except Missing as missing:
            report.left_out[part.name] = str(missing)
        except (OSError, ValueError) as error:
            report.left_out[part.name] = internal(error)
    if record is not None:
        try:
            read[RECORD] = Output(record())
        except Missing as missing:
            report.left_out[RECORD] = str(missing)
    known = _secrets(read)
    for path, why in known.unread.items():
        note = f"can't be read ({why}), so that it isn't replaced where it occurs"
        report.left_out[f"the secret in {path}"] = note
    anonymizer = Anonymizer(secrets.token_bytes(32), _names(read)) if anonymize else None
    show = anonymizer.text if anonymizer else str
    for name, output in read.items():
        # patterns would find what isn't a secret in a record, which has none (`daemon.record`)
        text = known.redact(output.text, patterns=name != RECORD)
        report.files[show(name)] = show(text if name == RECORD else escaped_lines(text))
        if output.problem:
            report.notes[name] = output.problem
    for reasons in (report.left_out, report.notes):
        for name, why in reasons.items():
            reasons[name] = show(known.redact(why))
    report.files = {README: _readme(report, at, anonymized=anonymize), **report.files}
    return report


def _secrets(read: Mapping[str, Output]) -> Secrets:
    known = Secrets()
    if config := read.get(CONFIG):
        known.learn_config(config.text)
    for name, output in read.items():
        if name.startswith("state/"):
            for text in configs_in(output.text):
                known.learn_config(text)
    if units := read.get(_UNIT_FILES):
        for variable, value in variables(units.text):
            known.learn_environment(variable, value)
    return known


def _names(read: Mapping[str, Output]) -> set[str]:
    """Names of hosts and domains: this host's, and those in the config."""
    host = socket.gethostname()
    names = {host} if len(host) >= _SHORTEST_HOST and host != "localhost" else set()
    text = read[CONFIG].text if CONFIG in read else ""
    for pattern in (_DOMAIN, _URL_HOST, _MAIL):
        names |= set(pattern.findall(text))
    return names


def _readme(report: Report, at: float, *, anonymized: bool) -> str:
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    lines = [f"Bug report of ifdefault {__version__}, {when}", ""]
    lines += ["Secrets are replaced by REDACTED. Read it before you send it to anybody.", ""]
    if anonymized:
        lines += [
            "Public addresses, MACs, host and domain names are replaced, the same by the same;",
            "prefixes still match. Names of uplinks and interfaces are the real ones.",
            "",
        ]
    lines += ["Files:"]
    for name in report.files:
        note = f"  ({report.notes[name]})" if name in report.notes else ""
        lines.append(f"  {name}{note}")
    if report.left_out:
        lines += ["", "Left out:"]
        lines += [f"  {name}: {why}" for name, why in report.left_out.items()]
    return "".join(f"{escaped_lines(line)}\n" for line in lines)
