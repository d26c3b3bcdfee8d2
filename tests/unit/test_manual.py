"""The manual against the program: every subcommand, option and key is there, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import click
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ifdefault import config
from ifdefault.cli.main import SUBCOMMANDS, cli
from ifdefault.cli.options import Options
from ifdefault.config.base import toml
from ifdefault.config.daemon import DaemonKeys
from ifdefault.config.dns import DnsKeys, ExecKeys, NameKeys, ProviderKeys, ServerKeys, UpdateKeys
from ifdefault.config.forward import ForwardKeys
from ifdefault.config.health import HealthKeys
from ifdefault.config.history import HistoryKeys
from ifdefault.config.hooks import HookKeys
from ifdefault.config.host import HostKeys
from ifdefault.config.notify import MEANS, NotifyKeys
from ifdefault.config.outgoing import OutgoingKeys, RuleKeys
from ifdefault.config.uplink import UplinkKeys
from ifdefault.config.web import WebKeys
from ifdefault.daemon import event_log, recordings
from ifdefault.daemon import host as daemon_host
from ifdefault.daemon.control import server
from ifdefault.daemon.dns import cookie_secrets, dynamic_update, embedded, programs, public_address
from ifdefault.daemon.process import dns_server, frontend_connection
from ifdefault.host import last_config, rollback_timer, settle, store
from ifdefault.ipc.control import client
from ifdefault.model.config import Config, HealthConfig
from ifdefault.monitor import start, status_file
from ifdefault.monitor.history import schema
from ifdefault.monitor.history.reader import history_dir
from ifdefault.monitor.notify.outbox import OUTBOX
from ifdefault.plan import undo_script

ROOT = Path(__file__).parents[2]
PROGRAM, KEYS = ROOT / "man/ifdefault.8", ROOT / "man/ifdefault.toml.5"
GUIDES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "packaging/README.md", *(ROOT / "docs").rglob("*.md"))
}
README = GUIDES["README.md"]
MODELS: dict[str, type[BaseModel]] = {
    "UPLINK KEYS": UplinkKeys,
    "HOST KEYS": HostKeys,
    "HEALTH KEYS": HealthKeys,
    "DAEMON KEYS": DaemonKeys,
    "HOOKS KEYS": HookKeys,
    "DNS KEYS": DnsKeys,
    "DNS NAME KEYS": NameKeys,
    "DNS SERVER KEYS": ServerKeys,
    "DNS UPDATE KEYS": UpdateKeys,
    "DNS PROVIDER KEYS": ProviderKeys,
    "DNS EXEC KEYS": ExecKeys,
    "FORWARD KEYS": ForwardKeys,
    "OUTGOING KEYS": OutgoingKeys,
    "OUTGOING RULE KEYS": RuleKeys,
    "WEB KEYS": WebKeys,
    "HISTORY KEYS": HistoryKeys,
    "NOTIFY KEYS": NotifyKeys,
}
REQUIRED = {  # what else stands in a table that an example is in
    "budget": '"1 GB"',
    "interface": '"wan9"',
    "name": '"www.example.com"',
    "zone": '"example.com"',
    "servers": '["192.0.2.1"]',
    "provider": '"cloudflare"',
    "credentials": '"/c"',
    "program": '"/p"',
    "zones": '["example.com"]',
    "listen": '"tcp:80"',
    "to": '"10.0.0.1"',
    "via": '["isp-a"]',
    "transport": '"udp"',
}
RECIPIENT = {"name": '"me"', "mail": '"me@example.net"', "smtp": '"smtps://me@mail.example.net"'}


# --- reading mdoc --------------------------------------------------------------------------


def sections(text: str, macro: str) -> dict[str, str]:
    """The text below each `.Sh` or `.Ss` heading, up to the next of its kind or above it."""
    ends = r"^\.Sh |\Z" if macro == "Sh" else r"^\.S[hs] |\Z"
    found = re.findall(rf"^\.{macro} (.+?)\n(.*?)(?={ends})", text, re.MULTILINE | re.DOTALL)
    return dict(found)


def flags(text: str) -> set[str]:
    """Every `Fl x` and `Fl -long` on macro lines, as typed."""
    macros = re.findall(r"^\.[A-Z].*", text, re.MULTILINE)
    return {f"-{name}" for line in macros for name in re.findall(r"\bFl ([\w-]+)", line)}


def listed(text: str) -> set[str]:
    """The options that a section's lists define."""
    return flags("\n".join(re.findall(r"^\.It Fl .*", text, re.MULTILINE)))


def plain(line: str) -> str:
    return line.replace(r"\(dq", '"')


def toml_blocks(text: str) -> list[str]:
    return re.findall(r'^\.\\" toml\n\.Bd [^\n]+\n(.*?)^\.Ed', text, re.MULTILINE | re.DOTALL)


def whole_configs(text: str) -> list[str]:
    """The blocks, those without uplinks after the minimal config, which is the first."""
    minimal, *others = toml_blocks(text)
    return [minimal, *(b if "[uplink." in b else f"{minimal}\n{b}" for b in others)]


# --- the program ---------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every subcommand, and those of groups as `lab up`."""
    for name in SUBCOMMANDS:
        command = import_module(f"ifdefault.cli.{name}").command
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", inner) for sub, inner in command.commands.items())


def options(command: click.Command) -> set[str]:
    found = (p for p in command.params if isinstance(p, click.Option))
    return {name for option in found for name in (*option.opts, *option.secondary_opts)}


COMMANDS = dict(commands())
MANUAL = PROGRAM.read_text()
SUBCOMMAND_PAGES = sections(sections(MANUAL, "Sh")["COMMANDS"], "Ss")


def test_every_subcommand_has_its_section_and_no_other_is_there() -> None:
    assert list(SUBCOMMAND_PAGES) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_section_lists_exactly_its_options(name: str) -> None:
    assert listed(SUBCOMMAND_PAGES[name]) == options(COMMANDS[name])


def test_global_options() -> None:
    told = listed(sections(MANUAL, "Sh")["OPTIONS"])
    assert told - {"-h", "--help"} == options(cli)


def test_no_option_is_spoken_of_that_there_is_not() -> None:
    known = options(cli).union(*map(options, COMMANDS.values()), {"-h", "--help"})
    of_script = {"--anyway", "--check"}  # that `down --script` prints
    assert flags(MANUAL) - of_script <= known
    assert flags(KEYS.read_text()) <= known


def test_synopsis_has_each_subcommand_with_its_options() -> None:
    lines = sections(MANUAL, "Sh")["SYNOPSIS"]
    entries = dict(re.findall(r"^\.Cm (\w+)\n(.*?)(?=^\.Nm|\Z)", lines, re.MULTILINE | re.DOTALL))
    assert list(entries) == list(SUBCOMMANDS)
    for name, entry in entries.items():
        told, known = flags(entry), options(COMMANDS[name])
        assert told <= known
        for option in COMMANDS[name].params:
            assert not isinstance(option, click.Option) or told & set(option.opts), (name, option)


def test_environment_and_files() -> None:
    pages = sections(MANUAL, "Sh")
    names = {p.envvar for p in cli.params if p.envvar} | {"IFDEFAULT_DEBUG"}
    names |= {"NO_COLOR", "CLICOLOR_FORCE"}
    assert set(re.findall(r"^\.It Ev (\S+)", pages["ENVIRONMENT"], re.MULTILINE)) == names
    state = Options().state_dir
    kept = {store.LOCK, store.GUARD, "undo.log", undo_script.NAME, store.SETTLING}
    own = (store.STATE, store.TABLES, last_config.LAST_CONFIG, event_log.SAVED)
    tried = (last_config.UNCONFIRMED,)
    changes = (rollback_timer.PENDING, settle.SETTLE, embedded.SERIALS, dynamic_update.UPDATES)
    others = (
        daemon_host.DRAINS,
        programs.PROGRAMS,
        public_address.DISCOVERED,
        cookie_secrets.COOKIES,
    )
    kept |= {file.name for file in (*own, *tried, *changes, *others)}
    files = {str(state / name) for name in kept}
    sockets = (client.SOCKET, client.OPEN_SOCKET, dns_server.UNIT, frontend_connection.UNIT)
    files |= {str(Options().run_dir / name) for name in (*sockets, server.LOCK, recordings.RECORD)}
    files |= {str(history_dir(state) / name) for name in (schema.FILE, start.LOCK, OUTBOX)}
    files |= {str(status_file.status_dir(Options().run_dir) / status_file.FILE)}
    lines = re.findall(r"^\.It Pa (.+)", pages["FILES"], re.MULTILINE)
    told = {str(state / path) for line in lines for path in line.split(" , ")}
    assert told == files | {str(Options().config)}


def test_exit_statuses() -> None:
    from ifdefault.cli import main, plan
    from ifdefault.model.errors import ConfigError, HostError

    used = {0, HostError.exit_status, ConfigError.exit_status, plan.EXIT_CHANGES}
    used |= {main.EXIT_INTERNAL, main.EXIT_INTERRUPTED}
    told = re.findall(r"^\.It (\d+)$", sections(MANUAL, "Sh")["EXIT STATUS"], re.MULTILINE)
    assert told == [str(status) for status in sorted(used)]


# --- the keys ------------------------------------------------------------------------------


def entries(section: str) -> dict[str, tuple[str, str]]:
    """Key to what its line says of the type, and to the text below."""
    text = sections(KEYS.read_text(), "Sh")[section]
    found = re.findall(
        r"^\.It Ic (\w+) Pq ([^\n]+)\n(.*?)(?=^\.It |^\.El)", text, re.MULTILINE | re.DOTALL
    )
    return {key: (plain(kind), below) for key, kind, below in found}


def keys_of(section: str) -> dict[str, FieldInfo]:
    """Those of a table but for the tables in it, which have sections of their own."""
    fields = MODELS[section].model_fields
    named = {field.alias or key: field for key, field in fields.items()}
    return {k: v for k, v in named.items() if f"{section[:-5]} {k.upper()} KEYS" not in MODELS}


@pytest.mark.parametrize("section", MODELS)
def test_every_key_is_there_with_its_default_and_no_other(section: str) -> None:
    fields = keys_of(section)
    assert list(entries(section)) == list(fields)
    for key, (kind, _) in entries(section).items():
        field = fields[key]
        shown = default_of(key, field.default)
        assert kind.endswith("required" if field.is_required() else f"default: {shown}"), key


def default_of(key: str, default: object) -> str:
    match default:
        case None | () if key in ("uplinks", "events", "transport"):
            return "any" if key == "transport" else "all"
        case None:
            return "those of health" if key == "probes" else "that of outgoing"
        case int() if key == "mark_mask":
            return f'"{default:#x}"'
        case float():
            return f"{default:g}"
        case tuple() if default:
            return "the resolvers below"
    return toml(list(default) if isinstance(default, tuple) else default)


def test_default_probes_are_named() -> None:
    _, below = entries("HEALTH KEYS")["probes"]
    (block,) = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", below, re.MULTILINE | re.DOTALL)
    assert sorted(block.split()) == sorted(str(probe) for probe in HealthConfig().probes)


@pytest.mark.parametrize("section", MODELS)
def test_bounds_are_those_of_the_parser(section: str) -> None:
    models = config.json_schema()["$defs"]
    properties = models[MODELS[section].__name__]["properties"]
    for key, (kind, _) in entries(section).items():
        if "minimum" in properties[key]:
            bounds = f"{properties[key]['minimum']} to {properties[key]['maximum']}, "
            assert kind.startswith(bounds), key
        for choice in properties[key].get("enum", []):
            assert f'"{choice}"' in plain(entries(section)[key][1]), key


@pytest.mark.parametrize("section", MODELS)
def test_every_key_has_an_example_that_says_something(section: str) -> None:
    for key, (_, below) in entries(section).items():
        (example,) = re.findall(r"^\.Dl (.+)", below, re.MULTILINE)
        line = plain(example)
        assert line.startswith(f"{key} = ")
        assert config_with(section, {key: line}) != config_with(section, {}), key


def config_with(section: str, told: dict[str, str]) -> Config:
    """A config that has these lines in the section's table, and what it must have."""
    table = section.removesuffix(" KEYS").lower().replace(" ", ".")
    needed = [key for key, field in MODELS[section].model_fields.items() if field.is_required()]
    needed += ["zones"] * (table == "dns.server")
    needed += ["transport"] * (table == "outgoing.rule" and "cgroups" not in told)
    needed += ["budget"] * ("on_budget" in told)
    required = REQUIRED | (RECIPIENT if table == "notify" else {})
    if table == "notify":
        needed += ["smtp"] * ("password_file" in told)
        needed += ["mail"] * (not set(MEANS) & told.keys())
    lines = {key: f"{key} = {required[key]}" for key in needed} | told
    head = (
        f"[[{table}]]" if set(needed) & {"name", "zone", "program", "to", "via"} else f"[{table}]"
    )
    head = "[uplink.isp-a]" if table == "uplink" else f'[uplink.isp-a]\ninterface = "wan0"\n{head}'
    others = '[uplink.isp-b]\ninterface = "wan1"\n'
    if table == "dns.name":
        others += '[dns.server]\nzones = ["example.com", "example.net"]\n'
    return config.parse("\n".join([head, *lines.values(), others]), "example")


def fenced(text: str, language: str) -> list[str]:
    """The code blocks of a language in Markdown."""
    return re.findall(rf"```{language}\b[^\n]*\n(.*?)```", text, re.DOTALL)


def whole_blocks(text: str) -> list[str]:
    """The configs of a guide, those that are added to another after the minimal one."""
    minimal = toml_blocks(KEYS.read_text())[0]
    return [b if "[uplink." in b else f"{minimal}\n{b}" for b in fenced(text, "toml")]


@pytest.mark.parametrize(
    "text",
    [*whole_configs(KEYS.read_text()), *(b for g in GUIDES.values() for b in whole_blocks(g))],
)
def test_every_config_parses(text: str) -> None:
    assert config.parse(text, "example").uplinks


def test_the_config_that_says_everything_says_the_defaults() -> None:
    everything = toml_blocks(sections(KEYS.read_text(), "Sh")["EXAMPLES"])[-1]
    parsed = config.parse(everything, "example")
    assert Config(parsed.uplinks) == replace(
        parsed, health=replace(parsed.health, probes=HealthConfig().probes)
    )
    assert sorted(parsed.health.probes) == sorted(HealthConfig().probes)


def test_no_config_goes_untested() -> None:
    text = KEYS.read_text()
    table = re.compile(r"^\[+[a-z][^]]*\]+$", re.MULTILINE)
    assert table.findall(text) == [t for block in toml_blocks(text) for t in table.findall(block)]
    assert "[uplink.isp-b]" in table.findall(text)


# --- both pages ----------------------------------------------------------------------------


@pytest.mark.parametrize("page", [PROGRAM, KEYS], ids=lambda page: page.name)
def test_a_page_is_ascii_of_known_shape(page: Path) -> None:
    text = page.read_bytes().decode("ascii")
    macros = re.findall(r"^\.(D[dt]|Os|Sh NAME)", text, re.MULTILINE)
    assert macros == ["Dd", "Dt", "Os", "Sh NAME"]
    for begin, end in (("Bl", "El"), ("Bd", "Ed"), ("Po", "Pc"), ("Rs", "Re")):
        count = [len(re.findall(rf"^\.{name}\b", text, re.MULTILINE)) for name in (begin, end)]
        assert count[0] == count[1], begin
    for kind in ("Sh", "Ss"):  # a heading that begins with a macro's name loses it
        assert not re.findall(rf"^\.{kind} (?:An|At|In|No|On|Os|Of|Or)\b", text, re.MULTILINE)
    for heading in re.findall(r"^\.Sx (.+?)(?: \.)?$", text, re.MULTILINE):
        assert re.search(rf"^\.S[hs] {re.escape(heading)}$", text, re.MULTILINE), heading


@pytest.mark.parametrize("page", [PROGRAM, KEYS], ids=lambda page: page.name)
def test_a_page_renders_without_warnings(page: Path) -> None:
    """By whichever formatter is here; the shape is tested without one as well."""
    renderers = (["mandoc", "-T", "utf8", "-W", "warning"], ["groff", "-mdoc", "-ww", "-Tutf8"])
    for renderer in renderers:
        if shutil.which(renderer[0]):
            done = subprocess.run([*renderer, page], capture_output=True, text=True, check=True)
            assert done.stderr == ""
            shown = re.sub("\x1b\\[[\\d;]*m|.\b", "", done.stdout)  # bold and underlined
            assert "\nNAME\n" in shown


# --- the README and the guides -------------------------------------------------------------


def test_readme_names_the_two_commands() -> None:
    assert "./dev demo" in README
    assert "./dev test" in README


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_names_commands_that_there_are(guide: str) -> None:
    text = GUIDES[guide]
    usage = subprocess.run([ROOT / "dev"], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"\./dev (\w+)", text)) <= set(re.findall(r"^  (\w\S*) ", usage, re.M))
    for name, rest in re.findall(r"\bifdefault ((?:lab )?[a-z]+)\b([^`\n#]*)", shell_lines(text)):
        assert name in COMMANDS
        assert set(re.findall(r"(?<!\S)--?[a-z][\w-]*", rest)) <= options(COMMANDS[name])


def shell_lines(text: str) -> str:
    """The shell blocks and the inline code of a guide."""
    typed = re.findall(r"^# (.*)", "\n".join(fenced(text, "console")), re.MULTILINE)
    return "\n".join([*fenced(text, "sh"), *typed, *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)])


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "packaging/README.md"])
def test_links_lead_somewhere(name: str) -> None:
    made_later = {"docs/figures.md"}  # by ./dev bench
    links = set(re.findall(r"\]\(([^)#:]+)\)", (ROOT / name).read_text())) - made_later
    assert [
        link for link in sorted(links) if not (ROOT / name).parent.joinpath(link).exists()
    ] == []


def test_the_changelog_speaks_of_this_version() -> None:
    from ifdefault import __version__

    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
