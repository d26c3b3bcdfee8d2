"""The files of other programs that may lay policy rules and routing tables.

Rules: reads, never writes, and what can't be read becomes a note, never an error. Only text files
of a sensible size are read, and only where these programs and administrators keep them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ifdefault.host import foreign_syntax as syntax
from ifdefault.host.foreign_syntax import NAMES, Statement
from ifdefault.model.errors import reason

_SIZE_MAX = 1 << 18
_FILES_MAX = 2000  # of a directory
_TABLES = (
    *("usr/share/iproute2/rt_tables", "usr/lib/iproute2/rt_tables"),
    *("etc/iproute2/rt_tables", "etc/iproute2/rt_tables.d/*.conf"),
)
_SHOREWALLS = ("etc/shorewall", "etc/shorewall6")
_NETWORKD = ("run/systemd/network", "etc/systemd/network", "usr/lib/systemd/network")
_NETWORK_MANAGER = (
    *("run/NetworkManager/system-connections", "etc/NetworkManager/system-connections"),
)
_IFUPDOWN = ("etc/network/interfaces", "etc/network/interfaces.d/*")
_SCRIPTS = (
    "etc/rc.local",
    "etc/network/if-*.d/*",
    "etc/NetworkManager/dispatcher.d/**/*",
    "etc/networkd-dispatcher/*/*",
    "etc/dhcp/dhclient-e*-hooks.d/*",
    "etc/dhcpcd.e*-hook",
    "etc/ppp/ip*-*.d/*",
    "etc/systemd/system/*.service",
    "usr/local/bin/*",
    "usr/local/sbin/*",
)
_NETPLAN = "etc/netplan/*.yaml"
_GENERATED = "netplan-"  # in the name of what netplan generates


@dataclass(slots=True)
class ForeignFiles:
    """What was found. `unread`: files, and why they weren't read."""

    names: dict[str, int] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)
    unread: list[tuple[str, str]] = field(default_factory=list)


def read(root: Path = Path("/")) -> ForeignFiles:
    return _Reader(root).read()


class _Reader:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._found = ForeignFiles(dict(NAMES))

    def read(self) -> ForeignFiles:
        found, names = self._found, self._found.names
        for pattern in _TABLES:
            for _, text in self._texts(pattern):
                names |= syntax.table_names(text)
        for directory in _SHOREWALLS:
            found.statements += self._shorewall(directory)
        for directory in _NETWORKD:
            for path, text in self._texts(f"{directory}/**/*.network*"):
                program = "netplan" if _GENERATED in path else "systemd-networkd"
                found.statements += syntax.networkd(program, path, text, names)
        for directory in _NETWORK_MANAGER:
            for path, text in self._texts(f"{directory}/*"):
                program = "NetworkManager"
                program = f"netplan for {program}" if _GENERATED in path else program
                found.statements += syntax.network_manager(program, path, text, names)
        found.statements[:] = self._from_netplan(found.statements)
        for pattern in (*_IFUPDOWN, *_SCRIPTS):
            program = "ifupdown" if pattern in _IFUPDOWN else "a script"
            for path, text in self._texts(pattern):
                found.statements += syntax.ip_commands(program, path, text, names)
        return found

    def _texts(self, pattern: str) -> Iterator[tuple[str, str]]:
        """The regular text files of a pattern, in order; a link counts where it leads."""
        try:
            paths = sorted(self._root.glob(pattern))[:_FILES_MAX]
        except OSError as error:
            self._found.unread.append((f"/{pattern}", f"can't be read: {reason(error)}"))
            return
        for path in paths:
            shown = f"/{path.relative_to(self._root)}"
            try:
                if not path.is_file():
                    continue
                with path.open("rb") as file:
                    data = file.read(_SIZE_MAX + 1)
            except OSError as error:
                self._found.unread.append((shown, f"can't be read: {reason(error)}"))
                continue
            if b"\0" in data:  # no text
                continue
            if len(data) > _SIZE_MAX:
                self._found.unread.append((shown, f"isn't read: larger than {_SIZE_MAX >> 10} KiB"))
            else:
                yield shown, data.decode("utf-8", "replace")

    def _shorewall(self, directory: str) -> Iterator[Statement]:
        six, names = directory.endswith("6"), dict(self._found.names)
        for path, text in self._texts(f"{directory}/providers"):
            rows = list(syntax.shorewall_providers(path, text, six))
            names |= {row.name: row.table for row in rows if row.table and row.name}
            yield from rows
        for path, text in self._texts(f"{directory}/rtrules"):
            yield from syntax.shorewall_rules(path, text, six, names)
        for name in ("mangle", "tcrules"):
            for path, text in self._texts(f"{directory}/{name}"):
                yield from syntax.shorewall_marks(path, text, six)

    def _from_netplan(self, statements: list[Statement]) -> Iterator[Statement]:
        """With the lines of netplan's own files instead of those that it generates."""
        lines = [
            (path, number, line.strip())
            for path, text in self._texts(_NETPLAN)
            for number, line in enumerate(text.splitlines(), 1)
        ]
        for statement in statements:
            generated = statement.program.startswith("netplan")
            yield _in_netplan(statement, lines) if generated else statement


def _in_netplan(statement: Statement, lines: list[tuple[str, int, str]]) -> Statement:
    known = dict(statement.known)
    wanted = [
        rf"from:\s*[\"']?{re.escape(str(known.get('src', '')).partition('/')[0])}(?![\w:])",
        rf"to:\s*[\"']?{re.escape(str(known.get('dst', '')).partition('/')[0])}(?![\w:])",
        rf"(?:table|route-table|mark):\s*{known.get('table')}\b",
    ]
    keys = (known.get("src"), known.get("dst"), known.get("table"))
    for pattern, key in zip(wanted, keys, strict=True):
        if key:
            for path, number, line in lines:
                if re.search(pattern, line):
                    return replace(statement, path=path, line=number, text=line)
    return statement
