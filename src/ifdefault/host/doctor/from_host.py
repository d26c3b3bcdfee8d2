"""The ports of this host as another host sees them, which ssh(1) logs in to.

    ssh HOST sh -s < script ──> "tcp 203.0.113.10 443 open" …

Rules: the other host needs a POSIX shell, and what it has of bash, nc and curl for TCP, dig for
DNS; nothing is installed there. ssh asks for no password. What the script prints is read line by
line, and anything else in it ignored.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ifdefault.model.findings import Finding

_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=4")
_SUBJECT = "from {}"
# every check runs in the background; a port that stays silent costs 3 s
_SCRIPT = """\
tcp() {
  if command -v bash >/dev/null 2>&1; then
    timeout 3 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null
  elif command -v nc >/dev/null 2>&1; then
    nc -z -w 3 "$1" "$2" >/dev/null 2>&1
  elif command -v curl >/dev/null 2>&1; then
    curl -s --connect-timeout 3 -m 3 "telnet://$3:$2" </dev/null >/dev/null 2>&1
  else
    echo "tcp $1 $2 unknown"; return
  fi
  case $? in
    0) echo "tcp $1 $2 open" ;;
    124 | 28) echo "tcp $1 $2 silent" ;;
    *) echo "tcp $1 $2 closed" ;;
  esac
}
udp() {
  command -v dig >/dev/null 2>&1 || { echo "udp $1 $2 unknown"; return; }
  if dig +norec +time=1 +tries=3 -p "$2" "@$1" "$3" SOA >/dev/null 2>&1
  then echo "udp $1 $2 open"; else echo "udp $1 $2 silent"; fi
}
"""


@dataclass(frozen=True, order=True, slots=True)
class Port:
    """`name`: what a DNS server is asked for."""

    transport: str
    address: str
    number: int
    name: str = "."


def script(ports: Sequence[Port]) -> str:
    calls = []
    for port in ports:
        bracketed = f"[{port.address}]" if ":" in port.address else port.address
        last = port.name if port.transport == "udp" else bracketed
        calls.append(f"{port.transport} '{port.address}' {port.number} '{last}' &\n")
    return f"{_SCRIPT}{''.join(calls)}wait\n"


def examine(host: str, ports: Sequence[Port], within_s: float) -> Iterator[Finding]:
    about = _SUBJECT.format(host)
    try:
        done = subprocess.run(
            [*_SSH, "--", host, "sh -s"],
            input=script(ports),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within_s,
            check=False,
        )
    except FileNotFoundError:
        yield Finding("warning", about, "ssh isn't installed", "install openssh-client")
        return
    except subprocess.TimeoutExpired:
        yield Finding("warning", about, f"no answer in {within_s:g} s", f"try `ssh {host} true`")
        return
    seen = _read(done.stdout, ports)
    if not seen:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        yield Finding("warning", about, f"ssh failed: {last}", f"try `ssh {host} true`")
        return
    yield from _findings(about, ports, seen)


def _read(output: str, ports: Sequence[Port]) -> dict[tuple[str, str, int], str]:
    wanted = {(port.transport, port.address, port.number) for port in ports}
    seen = {}
    for line in output.splitlines():
        words = line.split()
        if len(words) == 4 and words[2].isdigit():
            key = (words[0], words[1], int(words[2]))
            if key in wanted and words[3] in ("open", "closed", "silent", "unknown"):
                seen[key] = words[3]
    return seen


def _findings(
    about: str, ports: Sequence[Port], seen: dict[tuple[str, str, int], str]
) -> Iterator[Finding]:
    opened: dict[str, list[str]] = {}
    for port in ports:
        where = f"{port.transport.upper()} port {port.number} of {port.address}"
        match seen.get((port.transport, port.address, port.number), "silent"):
            case "open":
                opened.setdefault(port.address, []).append(f"{port.transport}:{port.number}")
            case "unknown":
                needs = "dig" if port.transport == "udp" else "bash, nc or curl"
                yield Finding("note", about, f"{where} not tried", f"install {needs} there")
            case "closed":
                means = "Packets arrive, and this host or its router refuses them."
                remedy = f"see what listens there: `ss -Hltnp sport = :{port.number}`"
                yield Finding("error", about, f"{where} is refused", remedy, means)
            case _:
                means = "A packet filter here, at the provider or there drops the packets."
                remedy = "if no packet filter of this host is named here, ask the provider"
                yield Finding("error", about, f"{where} doesn't answer", remedy, means)
    for address, numbers in opened.items():
        yield Finding("fact", about, f"{address} is open: {', '.join(numbers)}")
