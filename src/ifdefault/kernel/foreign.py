"""Other programs' marks and reverse path filters, and networkd's settings for foreign objects.

Rules: reads, never writes. The parsers are pure and take the output of `nft -j list ruleset` and
`iptables-save`. systemd-networkd's settings are read as systemd does: networkd.conf(5).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ifdefault.kernel import nft_json
from ifdefault.model.config import Family
from ifdefault.model.errors import HostError, Problem
from ifdefault.model.kernel import OWN_TABLES
from ifdefault.model.packet_filter import WHOLE_MARK, ForeignMark

_TIMEOUT_S = 5

Use = tuple[int, bool, int | None]  # bits, sets, value: as in ForeignMark


# --- marks ---------------------------------------------------------------------------------


Saved = tuple[tuple[str, str], ...]  # iptables or a variant of it, and what its -save prints


def iptables_saved(ruleset_json: str) -> Saved:
    """The rulesets that nft doesn't show: it shows the rules of iptables-nft as opaque `xt`, and
    not those of legacy iptables. The programs are run only if there are such rules."""
    programs = ["iptables-save", "ip6tables-save"] if '"xt"' in ruleset_json else []
    if any(_text(Path(f"/proc/net/{name}_tables_names")) for name in ("ip", "ip6")):
        programs += ["iptables-legacy-save", "ip6tables-legacy-save"]
    saved = []
    for program in programs:
        if path := shutil.which(program):
            try:
                done = subprocess.run(
                    [path], capture_output=True, errors="replace", timeout=_TIMEOUT_S, check=False
                )
            except subprocess.TimeoutExpired as error:
                what = f"no answer in {_TIMEOUT_S:g} s"
                raise HostError(Problem(program, what, f"see why {path} hangs")) from error
            saved.append((program.removesuffix("-save"), done.stdout))
    return tuple(saved)


def foreign_marks(ruleset_json: str, saved: Saved) -> tuple[ForeignMark, ...]:
    """The packet and connection marks that foreign rulesets set or match."""
    marks = list(nft_marks(ruleset_json))
    for program, text in saved:
        marks += iptables_marks(text, program.partition("-")[0])
    return tuple(dict.fromkeys(marks))


def _where(rule: dict[str, Any]) -> str:
    return f"nft {rule['family']} {rule['table']} {rule['chain']}, handle {rule['handle']}"


def nft_marks(ruleset_json: str) -> Iterator[ForeignMark]:
    """Rules that aren't understood, since they are of a later version, count as having none."""
    for entry in nft_json.objects(ruleset_json):
        rule = entry.get("rule")
        if not rule or (rule["family"] == "inet" and rule["table"] in OWN_TABLES):
            continue
        where = _where(rule)
        with suppress(*nft_json.NOT_UNDERSTOOD):
            for statement in rule.get("expr") or ():
                for use in (*_set_by(statement), *_matched_by(statement)):
                    yield from _foreign(where, use)


def _foreign(where: str, use: Use) -> Iterator[ForeignMark]:
    bits, sets, value = use
    if bits and (sets or value != 0):  # an unmarked packet is no one's
        yield ForeignMark(where, bits, sets, value)


def _set_by(statement: dict[str, Any]) -> Iterator[Use]:
    mangle = statement.get("mangle")
    if mangle and _is_mark(mangle["key"]):
        changed, value = _changed(mangle["key"], mangle["value"]), mangle["value"]
        if changed == WHOLE_MARK and isinstance(value, int):
            yield changed, True, value & WHOLE_MARK
            return
        yield changed, True, None
        if changed == WHOLE_MARK != (possible := _possible(value)):
            yield possible, True, None


def _matched_by(statement: dict[str, Any]) -> Iterator[Use]:
    if match := statement.get("match"):
        yield from _compared(match["left"], match["right"])
    if vmap := statement.get("vmap"):
        data = vmap["data"]
        keys = {"set": [key for key, _ in data["set"]]} if isinstance(data, dict) else data
        yield from _compared(vmap["key"], keys)


def _compared(left: Any, right: Any) -> Iterator[Use]:
    if _is_mark(left):
        for value in right["set"] if isinstance(right, dict) and "set" in right else [right]:
            if isinstance(value, int):
                yield WHOLE_MARK, False, value & WHOLE_MARK
            else:
                yield _possible(value), False, None
    elif isinstance(left, dict) and "&" in left and _is_mark(left["&"][0]):
        yield _possible(left["&"][1]), False, None


def _is_mark(expression: Any) -> bool:
    """Whether an expression is the mark of the packet or of its connection."""
    if not isinstance(expression, dict):
        return False
    return any(expression.get(kind, {}).get("key") == "mark" for kind in ("meta", "ct"))


def _changed(mark: Any, value: Any) -> int:
    """The bits of a mark that `mark set VALUE` may change; all, unless it is based on the mark."""
    if value == mark:
        return 0
    match value:
        case {"&": [inner, int(mask)]}:
            return _changed(mark, inner) | ~mask & WHOLE_MARK
        case {"|": [inner, other]} | {"^": [inner, other]}:
            if _changed(mark, inner) == WHOLE_MARK:
                inner, other = other, inner
            return _changed(mark, inner) | _possible(other)
    return WHOLE_MARK


def _possible(value: Any) -> int:
    """The bits that may be set in an expression's value."""
    match value:
        case int():
            return value & WHOLE_MARK
        case {"&": [one, other]}:
            return _possible(one) & _possible(other)
        case {"|": [one, other]} | {"^": [one, other]}:
            return _possible(one) | _possible(other)
        case {"set": list(members)}:
            bits = 0
            for member in members:
                bits |= _possible(member)
            return bits
        case {"range": [_, int(last)]}:
            return (1 << last.bit_length()) - 1
    return WHOLE_MARK


_IPTABLES_RULE = re.compile(r"-A (?P<chain>\S+) (?P<words>.*)")
_IPTABLES_MARK = re.compile(
    r"(?P<option>--(?:set-xmark|tproxy-mark|mark|nfmask|ctmask|restore-mark|save-mark))"
    r"(?: (?P<value>0x[0-9a-f]+|\d+)(?:/(?P<mask>0x[0-9a-f]+|\d+))?)?"
)


def iptables_marks(saved: str, program: str) -> Iterator[ForeignMark]:
    """As `nft_marks`, for the output of `iptables-save`: MARK, CONNMARK, TPROXY, and matches."""
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif rule := _IPTABLES_RULE.match(line):
            where = f"{program} {table} {rule['chain']}"
            masked = "mask " in rule["words"]
            for match in _IPTABLES_MARK.finditer(rule["words"]):
                yield from _foreign(where, _iptables_use(match, masked))


def _iptables_use(option: re.Match[str], masked: bool) -> Use:
    """iptables(8): --set-xmark VALUE/MASK zeroes the bits of MASK, then XORs VALUE."""
    value = int(option["value"] or "0", 0)
    mask = int(option["mask"] or hex(WHOLE_MARK), 0)
    match option["option"]:
        case "--restore-mark" | "--save-mark":
            return 0 if masked else WHOLE_MARK, True, None
        case "--nfmask" | "--ctmask":
            return value, True, None
        case "--mark":
            return mask, False, value if mask == WHOLE_MARK else None
        case _:
            return mask | value, True, value if mask == WHOLE_MARK else None


# --- reverse path filters ----------------------------------------------------------------


_DSTNAT = -100  # nft(8): the priority of dstnat
_FAMILIES: dict[str, tuple[Family, ...]] = {
    "inet": (4, 6),
    **dict.fromkeys(("ip", "ipv4"), (4,)),
    **dict.fromkeys(("ip6", "ipv6"), (6,)),
}


def reverse_path_filters(ruleset_json: str) -> tuple[tuple[str, Family], ...]:
    """Rules behind the translation of destinations that drop packets to whose source no route
    leads over the interface that they came in on."""
    if '"fib"' not in ruleset_json:
        return ()
    objects = nft_json.objects(ruleset_json)
    late = [
        [chain["family"], chain["table"], chain["name"]]
        for chain in (entry.get("chain", {}) for entry in objects)
        if chain.get("hook") == "prerouting" and chain.get("prio") not in range(-400, _DSTNAT + 1)
    ]
    found: list[tuple[str, Family]] = []
    for rule in (entry["rule"] for entry in objects if "rule" in entry):
        if [rule["family"], rule["table"], rule["chain"]] in late:
            with suppress(*nft_json.NOT_UNDERSTOOD):
                found += [(_where(rule), family) for family in _families_without_way_back(rule)]
    return tuple(found)


def _families_without_way_back(rule: dict[str, Any]) -> tuple[Family, ...]:
    """The families of which the rule drops such packets."""
    matches = [statement["match"] for statement in rule["expr"] if "match" in statement]
    lookups = [match["left"]["fib"] for match in matches if match["right"] is False]
    if not any({"saddr", "iif"} <= set(fib["flags"]) for fib in lookups):
        return ()
    if not any("drop" in statement for statement in rule["expr"]):
        return ()
    named = [m["right"] for m in matches if m["left"] == {"meta": {"key": "nfproto"}}]
    return _FAMILIES[named[0] if named else rule["family"]]


# --- systemd-networkd ----------------------------------------------------------------------

_FOREIGN = (
    "ManageForeignRoutingPolicyRules",
    "ManageForeignRoutes",
    "ManageForeignNextHops",
)
_CONFIG_DIRS = ("etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd")
_DROP_IN = "/etc/systemd/networkd.conf.d/ifdefault.conf"


def networkd_problems(root: Path = Path("/")) -> tuple[Problem, ...]:
    """A warning if systemd-networkd runs and would remove our routes and rules when it restarts."""
    if not _networkd_runs(root):
        return ()
    settings = _network_section(root)
    manages = [key for key in _FOREIGN if settings.get(key, "yes").lower() not in _NO]
    if not manages:
        return ()
    what = f"removes foreign rules and routes when it restarts ({', '.join(manages)})"
    lines = "\\n".join(["[Network]", *(f"{key}=no" for key in manages)])
    remedy = f"printf '{lines}\\n' | install -Dm644 /dev/stdin {_DROP_IN}"
    remedy += " && systemctl restart systemd-networkd"
    return (Problem("systemd-networkd", what, remedy, warning=True),)


_NO = ("no", "n", "false", "f", "off", "0")  # systemd.syntax(7)


def _networkd_runs(root: Path) -> bool:
    """Whether one runs in our network namespace: those of containers manage their own."""
    if not (root / "run/systemd/netif").exists():  # avoids listing all processes
        return False
    try:
        ours = str((root / "proc/self/ns/net").readlink())
    except OSError:
        ours = ""
    return any(
        _text(process / "comm").strip() == "systemd-network"  # truncated by the kernel
        and _is_in(process / "ns/net", ours)
        for process in root.glob("proc/[0-9]*")
    )


def _text(path: Path) -> str:
    """The text of a file; "" if it can't be read."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _is_in(link: Path, ours: str) -> bool:
    """Whether a process may be in our namespace: not if it ends just now, or has ended."""
    try:
        return str(link.readlink()) == ours
    except PermissionError:
        return True
    except OSError:
        return not ours


def _network_section(root: Path) -> dict[str, str]:
    """The [Network] section as systemd merges it.

    The first networkd.conf is used, then all drop-ins in the order of their names; of several with
    the same name, the one in the first directory.
    """
    mains = [root / directory / "networkd.conf" for directory in _CONFIG_DIRS]
    files = [path for path in mains if path.is_file()][:1]
    drop_ins: dict[str, Path] = {}
    for directory in _CONFIG_DIRS:
        for path in (root / directory / "networkd.conf.d").glob("*.conf"):
            drop_ins.setdefault(path.name, path)
    files += [drop_ins[name] for name in sorted(drop_ins)]
    settings: dict[str, str] = {}
    for path in files:
        for key, value in _pairs(path):
            settings[key] = value or "yes"  # an empty value restores the default
    return settings


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    section = ""
    for line in map(str.strip, _text(path).splitlines()):
        if line.startswith("["):
            section = line
        elif section == "[Network]" and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            yield key.strip(), value.strip()
