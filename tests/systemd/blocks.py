"""The code blocks of a document that a reader follows, run one after another on a lab's host.

    ```console                       commands as root, each after "# ", and their output
    ```console title="on a client"   the same on another node of the lab
    ```toml title="/etc/…"           a file to write; "added to /etc/…" appends to it
    <!-- fault: KIND PROVIDER -->    a fault of the lab's, before the next block

Rules: a line that begins with "> " continues a command. "…" stands for any text of a line, and
alone on a line for any lines; a number with a unit that is measured, such as "4.4s", stands for any
text, too. A command of whose output nothing is shown must succeed. One that only looks is repeated
until it shows what is expected, as a reader would do. All other blocks are not to be followed:
configs without a file, pictures, sketches.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ifdefault.lab import dns, faults
from ifdefault.lab.node import Node
from ifdefault.lab.waiting import eventually
from ifdefault.lab.world import World
from tests.net.watched import await_states
from tests.systemd.booted import Booted, write

_LOOKS = re.compile(
    r"ifdefault (?:status|check|dns|doctor|events|explain|history|notify$|plan)\b"
    r"|curl |dig |ip |ss |systemctl is-"
)
_BLOCK = re.compile(
    r"(?:^ *<!-- fault: (?P<fault>[^>]+) -->\s*)?"
    r'^(?P<indent> *)```(?P<language>[\w-]+)(?: title="(?P<title>[^"]+)")?\n'
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_MEASURED = re.compile(r"\b\d[\d.]* ?(?:m?s|min|h|%|rounds|[kM]?bit/s)(?!\w)")
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Block:
    line: int
    language: str
    title: str
    text: str
    fault: str = ""

    @property
    def is_followed(self) -> bool:
        return self.language == "console" or self.path != ""

    @property
    def path(self) -> str:
        """The file that it is to be written to, if any."""
        found = re.fullmatch(r"(?:added to )?/(\S+)", self.title)
        return found[1] if found else ""


def blocks(text: str) -> list[Block]:
    """Those that a reader follows."""
    found = (
        Block(
            line=text.count("\n", 0, match.start("indent")) + 1,
            language=match["language"],
            title=match["title"] or "",
            text=textwrap.dedent(match["text"]),
            fault=match["fault"] or "",
        )
        for match in _BLOCK.finditer(text)
    )
    return [block for block in found if block.is_followed]


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block, with the output shown below it."""
    for step in re.split(r"^# ", text, flags=re.MULTILINE)[1:]:
        command, *output = step.splitlines()
        while output and output[0].startswith("> "):
            command += "\n" + output.pop(0).removeprefix("> ")
        yield command, "\n".join(output).strip("\n")


def fits(shown: str, output: str) -> bool:
    """Whether an output is what a document shows of it."""
    lines = (
        r"(?:.*\n)*" if line.strip() == "…" else rf"{_line(line)}\n" for line in shown.splitlines()
    )
    printed = "".join(f"{line.rstrip()}\n" for line in output.strip("\n").splitlines())
    return re.fullmatch("".join(lines), printed) is not None


def _line(shown: str) -> str:
    """As a pattern; the width of columns varies with what is measured."""
    words = (re.escape(word).replace("…", ".*?") for word in _MEASURED.sub("…", shown).split())
    indent = " *" if shown.startswith(" ") else ""
    return indent + r"[ \t]+".join(words)


def follow(
    text: str,
    host: Booted,
    elsewhere: Mapping[str, Callable[[Booted], None]] = MappingProxyType({}),
) -> int:
    """Do what a document says, and return the number of blocks. `elsewhere`: what does those whose
    title names another machine than one of the lab's."""
    count = 0
    for block in blocks(text):
        if block.fault:
            await_states(host.world, ["up"])
            fault, provider = block.fault.split()
            faults.inject(host.world, fault, provider)
        if block.path:
            _write(block, host)
        elif block.title in elsewhere:
            elsewhere[block.title](host)
        else:
            for command, shown in steps(block.text):
                _run(host, block, command, shown)
        count += 1
    return count


def _write(block: Block, host: Booted) -> None:
    before = host.path(block.path).read_text() if block.title.startswith("added to ") else ""
    write(host.path(""), {block.path: before + block.text})


def _run(host: Booted, block: Block, command: str, shown: str) -> None:
    script = f"cd; exec 2>&1; {command}"
    node: Booted | Node = host
    if block.title:  # there, mounts end with the command
        node = host.world[block.title.split()[-1]]
        script = f"mount --bind {_resolv_conf(host.world)} /etc/resolv.conf; {script}"
    last = ""

    def is_as_shown() -> bool:
        nonlocal last
        done = node.run(["env", "COLUMNS=80", "bash", "-c", script], check=False)
        last = f"{done.stdout}[exit status {done.returncode}]"
        return fits(shown, done.stdout) if shown.strip("…\n") else done.returncode == 0

    where = f"line {block.line}: {command}"
    if _LOOKS.match(command):
        try:
            eventually(is_as_shown, _PATIENCE_S, what=where, poll_s=0.2)
        except TimeoutError as error:
            raise AssertionError(f"{where}\nshown:\n{shown}\nprinted:\n{last}") from error
    elif not is_as_shown():
        raise AssertionError(f"{where}\nshown:\n{shown}\nprinted:\n{last}")


def _resolv_conf(world: World) -> Path:
    path = world.dir / "resolv.conf"
    path.write_text(f"nameserver {dns.RESOLVER[0]}\n")
    return path
