"""A bug report: complete without what fails, without secrets, and its recording replays."""

from __future__ import annotations

import asyncio
import errno
import io
import re
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ifdefault.cli import daemon_client
from ifdefault.cli.main import run
from ifdefault.cli.options import Options
from ifdefault.daemon import record
from ifdefault.daemon.record import Redactor
from ifdefault.daemon.replay import Replay
from ifdefault.daemon.snapshot import Snapshot
from ifdefault.host.bug_report import archive
from ifdefault.host.bug_report.redaction import Secrets
from ifdefault.ipc.control.client import NotRunning
from ifdefault.ipc.control.protocol import Record, Recorded
from ifdefault.model.errors import HostError, Problem
from tests.unit.test_snapshot import running

CONFIG = """\
# the old one: password = "planted-in-comment"
[uplink.isp-a]
interface = "wan0"
probes = ["https://me:planted-user@probe.example.net/up?token=planted-query"]
[web]
control_token_file = "{keys}/web.token"
[[notify]]
name = "chat"
webhook = "https://hooks.example.net/services/planted-hook"
[[notify]]
name = "mail"
mail = "admin@example.net"
smtp = "smtp://me@mail.example.net"
password_file = "{keys}/smtp.password"
[[dns.update]]
zone = "example.net"
servers = ["5.9.10.53"]
key = "{keys}/update.key"
[[dns.provider]]
provider = "powerdns"
credentials = "{keys}/powerdns.toml"
"""
KEYS = {
    "web.token": "planted-web/token\n",
    "smtp.password": 'planted "smtp" password\n',
    "update.key": 'key "k" {\n algorithm hmac-sha256;\n secret "cGxhbnRlZA==planted";\n};\n',
    "powerdns.toml": 'url = "http://localhost:8081"\nkey = "planted-provider"\n',
    "unit.env": "SMTP_PASSWORD=planted-in-file\nMODE=fast\n",
}
UNITS = """\
[Service]
Environment="SMTP_PASSWORD=planted-in-unit" MODE=quick
SetCredential=web:planted-credential
EnvironmentFile=-{keys}/unit.env
"""
JOURNAL = (
    'sent planted-web/token, planted-web%2Ftoken, planted \\"smtp\\" password; tried'
    " planted-in-unit and planted-in-file of 5.9.10.7 with planted-credential"
    " cGxhbnRlZC1wcm92aWRlcg== cGxhbnRlZA==planted Authorization: Bearer planted.bearer\n"
    "planted-provider planted-hook https://x:planted-url@h/ {'api_key': 'planted-key'}\n"
    "an uplink is down: \x1b[31m\n"
)
PLANTED = re.compile(r"planted|cGxhbnRlZ")


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """A host whose config, keys, units and journal have secrets; its daemon records at once."""
    keys, programs = tmp_path / "keys", tmp_path / "bin"
    for directory in (keys, programs, tmp_path / "state", tmp_path / "run"):
        directory.mkdir()
    for name, text in KEYS.items():
        (keys / name).write_text(text)
    options = Options(tmp_path / "ifdefault.toml", tmp_path / "state", tmp_path / "run")
    options.config.write_text(CONFIG.format(keys=keys))
    (tmp_path / "state" / "cookies.json").write_text('"planted-cookie"')
    (tmp_path / "unit").write_text(UNITS.format(keys=keys))
    (tmp_path / "journal").write_text(JOURNAL)
    answers = {
        "systemctl": f'[ "$1" = cat ] && cat {tmp_path}/unit || echo Id=ifdefault.service',
        "journalctl": f"cat {tmp_path}/journal",
        "nft": "echo Error: no such table >&2; exit 1",
    }
    for name in ("ip", "ls", *answers):
        (programs / name).write_text(f"#!/bin/sh\n{answers.get(name, 'echo $0 5.9.10.0/24')}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr("ifdefault.cli.report._OWN", (("version",), ("status", "--json")))

    def ask(_: Options, request: Record, timeout_s: float) -> Recorded:
        assert request == Record(2)
        path = tmp_path / "run" / "record.jsonl"
        recorder = record.create(path, pytest.fail, Snapshot(running().controller))
        asyncio.run(recorder.write_state())
        recorder.close()
        return Recorded(str(path))

    monkeypatch.setattr(daemon_client, "ask", ask)
    monkeypatch.chdir(tmp_path)
    return options


def report(options: Options, *arguments: str) -> int:
    where = ("--config", options.config, "--state-dir", options.state_dir)
    paths = (*where, "--run-dir", options.run_dir)
    return run([*map(str, paths), "report", "-o", "r.tar.gz", *arguments])


def files() -> dict[str, str]:
    with tarfile.open("r.tar.gz") as tar:
        read = {m.name.removeprefix("r/"): tar.extractfile(m) for m in tar.getmembers()}
        return {name: file.read().decode() for name, file in read.items() if file}


def test_no_secret_is_in_it_and_its_recording_replays(
    options: Options, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert report(options, "--recording", "2") == 0
    found = files()
    assert {name for name, text in found.items() if PLANTED.search(text)} == set()
    said = capsys.readouterr()
    assert not PLANTED.search(said.out + said.err)
    assert stat.S_IMODE(Path("r.tar.gz").stat().st_mode) == 0o600
    assert not (options.run_dir / "record.jsonl").exists()

    config = found["config/ifdefault.toml"]
    assert '# the old one: password = "REDACTED"' in config
    assert f'password_file = "{tmp_path}/keys/smtp.password"' in config
    assert "REDACTED@probe.example.net/up?REDACTED" in config
    assert "MODE=quick" in found["systemd/unit-files.txt"]
    assert "an uplink is down: \\x1b[31m" in found["systemd/journal.txt"]

    Path("record").write_text(found["record.jsonl"])
    assert [*Replay(Path("record")).turns()] == []  # nothing happened, but there is a state

    assert next(iter(found)) == "README.txt"
    assert "kernel/nft.txt: nft: Error: no such table" in found["README.txt"]
    assert "left out: kernel/nft.txt: nft: Error: no such table" in said.out
    assert "state/cookies.json" not in found


def test_anonymized(options: Options) -> None:
    assert report(options, "--recording", "2", "--anonymize") == 0
    found = files()
    assert not re.search(r"example\.net|5\.9\.10\.", "".join(found.values()))
    assert found["kernel/link.txt"].endswith(".0/24\n")
    assert "isp-a" in found["config/ifdefault.toml"]
    Path("record").write_text(found["record.jsonl"])
    assert [*Replay(Path("record")).turns()] == []


def test_what_fails_is_said(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*_: object) -> None:
        raise NotRunning(Problem("", "no daemon runs", "start it"))

    monkeypatch.setattr(daemon_client, "ask", absent)
    monkeypatch.setenv("PATH", "/nowhere")
    options.config.write_text(CONFIG.format(keys="/nowhere") + "[[[")
    assert report(options) == 0
    readme = files()["README.txt"]
    assert "record.jsonl: no daemon runs; start it" in readme
    assert re.search(r"systemd/units\.txt: systemctl (is not installed|:)", readme)
    assert report(options, "--no-recording") == 1
    assert "r.tar.gz already exists" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fdopen", lambda *_: Full())
    with pytest.raises(HostError, match="can't be written: no space left on device"):
        archive.write(tmp_path / "r.tar.gz", {"a": "b"}, 0.0)
    assert [*tmp_path.iterdir()] == []


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    for folder in ("1", "2"):
        archive.write(tmp_path / folder / "r.tar.gz", {"b": "x", "a": "y"}, 1e9)
    one, two = ((tmp_path / folder / "r.tar.gz").read_bytes() for folder in ("1", "2"))
    assert one == two


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('token_file = "/etc/token"', 'token_file = "/etc/token"'),
        ("tsig-key: secret", "tsig-key: secret"),
        ('secret "abcd=="', 'secret "REDACTED"'),
        ("the daemon's state: up", "the daemon's state: up"),
        ("https://h/p?a=b&c=d end", "https://h/p?REDACTED end"),
        ("Is it up? yes", "Is it up? yes"),
        ("SMTP_PASSWORD_2=abc", "SMTP_PASSWORD_2=REDACTED"),
        ("passive: 3, passed: 4, bypass: 5", "passive: 3, passed: 4, bypass: 5"),
        ("web.control_token_file: /k is", "web.control_token_file: /k is"),
        ("GET /up?token: no answer", "GET /up?REDACTED no answer"),
        ('{"password": "x y"}', '{"password": "REDACTED y"}'),
        ("basic rules stay", "basic REDACTED stay"),  # rather too much
        (
            "-----BEGIN PRIVATE KEY-----\nAB\n-----END",
            "-----BEGIN PRIVATE KEY-----REDACTED-----END",
        ),
    ],
)
def test_what_looks_like_a_secret(text: str, shown: str) -> None:
    assert Secrets().redact(text) == shown


def test_a_record_keeps_what_a_controller_needs() -> None:
    redact: Callable[[str], str] = Redactor().text
    assert redact("https://a/b?c") == redact("https://a/b?c") != redact("https://a/b?d")
