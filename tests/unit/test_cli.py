"""The command line: its start-up time, its exit statuses and its error messages."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from ifdefault import __version__
from ifdefault.cli import hostcheck, main
from ifdefault.cli.hostcheck import HostCheck
from ifdefault.cli.options import Options
from ifdefault.host import foreign_files, observe_foreign, rollback_timer
from ifdefault.host.foreign_files import ForeignFiles
from ifdefault.host.store import Store
from ifdefault.model.errors import ConfigError, HostError, KernelError, Problem
from ifdefault.model.host import Observation, State
from ifdefault.model.kernel import OWN_TABLES, Address, Desired, Facts, Hop, Link, Route
from ifdefault.model.report import DaemonStatus
from ifdefault.plan.prepare import Prepared

FACTS = Facts(
    links=(Link(2, "wan0"),),
    addresses=(Address(4, "wan0", "203.0.113.10", 24),),
    routes=(Route(4, 254, "default", hops=(Hop("wan0", "203.0.113.1"),)),),
)
Install = Callable[[Callable[[Options], object]], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Let `ifdefault status` run a function."""

    def put(function: Callable[[Options], object]) -> None:
        module = types.ModuleType("ifdefault.cli.status")
        module.command = click.command()(click.pass_obj(function))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "ifdefault.cli.status", module)

    return put


def fails_with(error: BaseException) -> Callable[[Options], object]:
    def command(_: Options) -> object:
        raise error

    return command


def program(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )


# --- the front -----------------------------------------------------------------------------


def test_help_names_every_subcommand_and_imports_none() -> None:
    code = (
        "import sys; from ifdefault.cli.main import run; status = run(['-h'])\n"
        "slow = [m for m in sys.modules if m.startswith(('ifdefault.', 'pydantic'))]\n"
        "print(sorted(slow), status, file=sys.stderr)"
    )
    done = program("-c", code)
    names = [line.split()[0] for line in done.stdout.partition("Commands:\n")[2].splitlines()]
    assert (
        names
        == (
            "init check plan apply confirm down run monitor web reload uplink status top events"
            " history dns notify doctor explain exec replay report lab demo completion version help"
        ).split()
    )
    assert done.stderr.split() == [
        "['ifdefault.cli',", "'ifdefault.cli.main',", "'ifdefault.cli.options',",
        "'ifdefault.model',", "'ifdefault.model.errors',", "'ifdefault.model.text']", "0",
    ]  # fmt: skip


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["-V"]) == 0
    assert capsys.readouterr().out.startswith("ifdefault 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["appyl"], 'no command "appyl"; did you mean "apply"?'),
        (["zzz"], 'no command "zzz"'),
        (["--confg", "x"], "--confg"),
        ([], "Commands:"),
    ],
)
def test_usage_errors(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2
    assert message in capsys.readouterr().err


def test_version_names_what_runs_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["version"]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["ifdefault"] == f"{__version__}, {Path(main.__file__).parents[1]}"
    assert told["Python"] == f"{platform.python_version()}, {sys.executable}"
    assert platform.release() in told["kernel"]
    assert Path(told["libnftables"]).name.startswith("libnftables.so.1")


@pytest.mark.parametrize("words", [[], ["status"], ["lab", "up"], ["dns", "check"]])
def test_help_is_that_of_the_option(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([*words, "--help"]) == 0
    expected = capsys.readouterr().out
    assert main.run(["help", *words]) == 0
    assert capsys.readouterr().out == expected


def test_help_of_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["help", "dns", "chekc"]) == 2
    assert '"ifdefault dns" has no command "chekc"' in capsys.readouterr().err
    assert main.run(["help", "statsu"]) == 2
    assert 'did you mean "status"?' in capsys.readouterr().err


def test_options_reach_the_subcommand(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Options] = []
    install(seen.append)
    assert main.run(["-c", "/a", "--state-dir", "/b", "--run-dir", "/d", "status"]) == 0
    monkeypatch.setenv("IFDEFAULT_CONFIG", "/c")
    monkeypatch.setenv("IFDEFAULT_RUN_DIR", "/e")
    assert main.run(["status"]) == 0
    assert seen == [
        Options(Path("/a"), Path("/b"), Path("/d")),
        Options(Path("/c"), Path("/var/lib/ifdefault"), Path("/e")),
    ]


# --- how a run ends ------------------------------------------------------------------------


def test_a_number_is_the_exit_status(install: Install) -> None:
    install(lambda _: 7)
    assert main.run(["status"]) == 7


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (
            HostError(Problem("nftables", "missing", "install it"), "no root"),
            1,
            "ifdefault: nftables: missing; install it\nifdefault: no root\n",
        ),
        (ConfigError(Problem("f.toml:3: uplink.a", "no good")), 2, "f.toml:3: uplink.a: no good\n"),
        (KeyboardInterrupt(), 130, "\n"),  # below the ^C that the terminal shows
        (
            ZeroDivisionError("by zero"),
            70,
            (
                "ifdefault: internal error: ZeroDivisionError: by zero; please report it; "
                "IFDEFAULT_DEBUG=1 shows the details\n"
            ),
        ),
    ],
)
def test_errors(
    error: BaseException,
    status: int,
    told: str,
    install: Install,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(fails_with(error))
    assert main.run(["status"]) == status
    assert capsys.readouterr().err == told


def test_debug_shows_the_traceback(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(fails_with(ZeroDivisionError()))
    monkeypatch.setenv("IFDEFAULT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main.run(["status"])


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_leaves_is_no_error(lines: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = (
        "import click, sys, types; from ifdefault.cli.main import main\n"
        "module = sys.modules['ifdefault.cli.status'] = types.ModuleType('status')\n"
        f"module.command = click.command()(lambda: print('line\\n' * {lines}))\n"
        "sys.argv[1:] = ['status']; main()"
    )
    try:
        assert program("-c", code, stdout=writer).stderr == ""
    finally:
        os.close(writer)


# --- init ----------------------------------------------------------------------------------


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe_foreign, "read_facts", lambda: FACTS)
    monkeypatch.setattr(foreign_files, "read", ForeignFiles)


def test_a_full_disk_is_no_internal_error(
    install: Install, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        install(lambda _: click.echo("a line"))
        assert main.run(["status"]) == 1
    said = "ifdefault: output can't be written: no space left on device\n"
    assert capfd.readouterr().err == said


@pytest.mark.usefixtures("facts")
def test_init_writes_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "ifdefault.toml"
    assert main.run(["-c", str(path), "init"]) == 0
    told = capsys.readouterr().out
    assert f"wrote {path}" in told
    assert "isp-a on wan0\n" in told
    path.write_text("mine")
    assert main.run(["-c", str(path), "init"]) == 1
    assert "exists already; use --force to replace it" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main.run(["init", "-o", str(path), "--force"]) == 0
    assert 'interface = "wan0"' in path.read_text()


@pytest.mark.usefixtures("facts")
def test_init_print_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ifdefault.toml"
    assert main.run(["-c", str(path), "init", "--print"]) == 0
    assert 'interface = "wan0"' in capsys.readouterr().out
    assert not path.exists()
    assert main.run(["init", "--print", "-o", "x"]) == 2


def test_init_without_uplink_shows_the_interfaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lan = Facts(links=(Link(2, "lan0"),), addresses=(Address(4, "lan0", "10.0.0.1", 8),))
    monkeypatch.setattr(observe_foreign, "read_facts", lambda: lan)
    monkeypatch.setattr(foreign_files, "read", ForeignFiles)
    assert main.run(["-c", str(tmp_path / "x"), "init"]) == 1
    told = capsys.readouterr().err
    assert "(lan0 with 10.0.0.1/8); lan0 (10.0.0.1) has a private address" in told
    assert "; bring the uplinks up" in told
    assert not (tmp_path / "x").exists()


# --- check ---------------------------------------------------------------------------------


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "f.toml"
    path.write_text('[uplink.isp-a]\ninterface = "wan0"\nweight = 0\n')
    return path


def find(monkeypatch: pytest.MonkeyPatch, *problems: Problem) -> None:
    found = sorted(problems, key=lambda problem: problem.warning)
    monkeypatch.setattr(hostcheck, "check_host", lambda *_: HostCheck(found))


ERROR = Problem("table 1000", "holds a route", "move it")
WARNING = Problem("ip rule 5", "catches", warning=True)


def test_check_reports_config_and_host_in_one_run(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find(monkeypatch, WARNING, ERROR)
    assert main.run(["-c", str(config_file), "check"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        f"{config_file}:3: uplink.isp-a.weight: 0 is too small; use 1 or more\n"
        "error: table 1000: holds a route; move it\n"
        "warning: ip rule 5: catches\n"
        "2 errors, 1 warning\n"
    )


def test_check_exit_status_depends_on_the_kind_of_problem(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config_file.write_text('[uplink.isp-a]\ninterface = "wan0"\n')
    find(monkeypatch, WARNING)
    assert main.run(["-c", str(config_file), "check"]) == 0
    assert capsys.readouterr().out == "ok: 0 uplinks, 1 warning\n"
    find(monkeypatch, WARNING, ERROR)
    assert main.run(["-c", str(config_file), "check"]) == 1


def test_check_reports_what_waits_for_confirmation(monkeypatch: pytest.MonkeyPatch) -> None:
    left_s: list[float | None] = [None, 33.6]
    monkeypatch.setattr(rollback_timer, "left_s", lambda _: left_s.pop(0))
    store = Store(Path("/nonexistent"))
    assert list(hostcheck.unconfirmed(store, None)) == []
    [problem] = hostcheck.unconfirmed(store, None)
    text = "undone in 34 s unless you run: ifdefault confirm"
    assert (str(problem), problem.warning) == (f"apply --confirm: {text}", True)
    daemon = DaemonStatus(1, 1.0, 1.0, "f.toml", held=text)
    [problem] = hostcheck.unconfirmed(store, daemon)
    assert str(problem) == f"daemon: {text}"


def test_check_json(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find(monkeypatch, WARNING)
    assert main.run(["-c", str(config_file), "check", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert [problem["warning"] for problem in told["problems"]] == [False, True]
    assert told["problems"][0]["where"] == f"{config_file}:3: uplink.isp-a.weight"


def test_check_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["check", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "ifdefault.toml"


def test_check_survives_a_kernel_that_refuses(
    config_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise KernelError(Problem("nft", "operation not permitted"))

    monkeypatch.setattr("ifdefault.kernel.nft.check", refuse)
    assert main.run(["-c", str(config_file), "check"]) == 2
    told = capsys.readouterr().err
    assert "weight: 0 is too small" in told
    assert "error: nft: operation not permitted" in told


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A plan of each of our nft tables, and of nothing else."""
    texts = {name: f"table inet {name} {{\n}}\n" for name in OWN_TABLES}
    desired = Desired(tables=tuple(texts.items()))
    prepared = Prepared(Observation(Facts()), (), desired, (), State())
    monkeypatch.setattr("ifdefault.host.transaction.prepare", lambda *_, **__: prepared)
    monkeypatch.setattr("ifdefault.cli.daemon_client.decision", lambda _: None)
    return texts


def test_plan_ruleset_shows_every_table(
    tables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["plan"]) == 0
    assert capsys.readouterr().out == ""
    assert main.run(["plan", "--ruleset"]) == 0
    assert capsys.readouterr().out == "".join(tables.values())


def test_plan_json_has_every_table_by_its_name(
    tables: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["plan", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tables"] == tables
    assert "ruleset" not in told


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("tcp", "any", "1.1.1.1:65536"), "not a port; use one up to 65535"),
        (("tcp", "[2001:db8::1]:99999", "2001:db8::2"), "not a port; use one up to 65535"),
        (("tcp", "any", "fe80::1%eth0"), "has a zone"),
        (("--mark=0x100000000", "tcp", "any", "1.1.1.1"), "is not a mark"),
        (("--mark=-1", "tcp", "any", "1.1.1.1"), "is not a mark"),
        (("--user=-5", "tcp", "any", "1.1.1.1"), "--user"),
        (("--iif=a/b", "tcp", "any", "1.1.1.1"), "not the name of an interface"),
        (("--iif=a\0b", "tcp", "any", "1.1.1.1"), "not the name of an interface"),
    ],
)
def test_explain_is_not_asked_what_no_packet_has(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], why: str
) -> None:
    assert main.run(["explain", *arguments]) == 2
    assert why in capsys.readouterr().err
