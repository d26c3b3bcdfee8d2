"""nftables by libnftables: load, check, list.

Rules: one call is one transaction of the kernel. A context uses the network namespace of the thread
that created it. The library is loaded on first use, so that commands that don't need it start fast,
and its absence is reported as an error instead of a traceback.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ifdefault.kernel import nftlink
from ifdefault.kernel.netlink import open_ports
from ifdefault.kernel.uapi.netlink import NETLINK_NETFILTER
from ifdefault.libc import SELECT_MAX
from ifdefault.model.errors import HostError, KernelError, Problem
from ifdefault.model.kernel import (
    FORWARD_TABLE,
    NFT_TABLE,
    OWN_TABLES,
    RULESET_DIGEST,
    NftTable,
    ruleset_digest,
)
from ifdefault.model.text import to_bytes

_STATELESS, _JSON, _TERSE = 1 << 2, 1 << 4, 1 << 11
# the elements of a set that packets add to
_FILLED = re.compile(r"(\t\tflags dynamic\n(?:\t\t\w+\n)*)\t\telements = \{[^}]*\}\n")
_CAP_NET_ADMIN = 1 << 12  # linux/capability.h


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError:
        remedy = "install nftables (on Debian and Ubuntu: apt install nftables)"
        raise HostError(Problem("nftables", "libnftables.so.1 is missing", remedy)) from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    return library


def library_path() -> str:
    """The file of the library, whose name has its version; "" if it isn't installed."""
    try:
        _library()
    except HostError:
        return ""
    maps = Path("/proc/self/maps").read_text("utf-8", "replace")
    found = re.search(r"/\S*/libnftables\.so\S*", maps)
    return found[0] if found else ""


@functools.cache
def has_rights() -> bool:
    """Whether this process may read and change rulesets."""
    status = Path("/proc/self/status").read_text("utf-8", "replace")
    capabilities = status.partition("CapEff:")[2].split()[0]
    return bool(int(capabilities, 16) & _CAP_NET_ADMIN)


def _require_rights() -> None:
    """Without rights, libnftables prints to stderr and returns no useful error."""
    if not has_rights():
        what = "reading and changing rulesets needs CAP_NET_ADMIN"
        remedy = "run as root; a container must be given that capability"
        raise HostError(Problem("nftables", what, remedy))


def _require_low_descriptor() -> None:
    """libnftables waits by select(2), which ends the process at a descriptor that is too high."""
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.close(fd)
    if fd >= SELECT_MAX:
        what = f"libnftables can't be used while {SELECT_MAX} files are open"
        remedy = "start it again; if it goes on, report it with the output of: ls -l /proc/PID/fd"
        raise HostError(Problem("nftables", what, remedy))


@contextmanager
def _context() -> Iterator[ctypes.c_void_p]:
    """A libnftables context; it has its own netlink socket until it is freed."""
    library = _library()
    _require_rights()
    _require_low_descriptor()
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        yield context
    finally:
        library.nft_ctx_free(context)


def _run(context: ctypes.c_void_p, command: str) -> str:
    library = _library()
    status = library.nft_run_cmd_from_buffer(context, to_bytes(command))
    output: bytes = library.nft_ctx_get_output_buffer(context)
    if status:
        errors: bytes = library.nft_ctx_get_error_buffer(context)
        raise KernelError(Problem("nft", _first_error(errors.decode(errors="replace"))))
    return output.decode(errors="replace")


def run(command: str, *, output: int = 0, dry_run: bool = False) -> str:
    """Run nft commands as one transaction and return their output."""
    with _context() as context:
        _library().nft_ctx_output_set_flags(context, output)
        _library().nft_ctx_set_dry_run(context, dry_run)
        return _run(context, command)


def _first_error(output: str) -> str:
    for line in output.splitlines():
        _, prefix, message = line.partition("Error: ")
        if prefix:
            return message.lower()
    return output.strip() or "nft failed without a message"


def _batch(table: str, text: str) -> str:
    """Commands that replace a table of ours by `text`, with the text's digest as its comment.

    nft 1.0.6 has no `destroy`: adding the table first makes its deletion always succeed.
    """
    name = f"table inet {table}"
    if not text:
        return f"add {name}\ndelete {name}\n"
    marked = text.replace("{\n", f'{{\n\tcomment "{ruleset_digest(text)}"\n', 1)
    return f"add {name}\ndelete {name}\n{marked}"


def load(table: str, text: str) -> frozenset[int]:
    """Replace a table of ours by `text`; "" deletes it. Return the port ids of this process's
    nfnetlink sockets; one of them requested the change (the library doesn't tell which)."""
    with _context() as context:
        _run(context, _batch(table, text))
        return open_ports(NETLINK_NETFILTER)


def check(table: str, text: str) -> None:
    """Let the kernel check a table without loading it. Raises KernelError if it is invalid."""
    run(_batch(table, text), dry_run=True)


def ruleset_json() -> str:
    """All tables of this host in the format of `nft -j list ruleset`, without elements of named
    sets."""
    return run("list ruleset", output=_JSON | _STATELESS | _TERSE)


def elements_json(kind: str, family: str, table: str, name: str) -> str:
    """A named set or map (`kind`) of any table in the format of `nft -j list set`."""
    return run(f"list {kind} {family} {table} {name}", output=_JSON | _STATELESS)


def read_tables() -> tuple[tuple[str, NftTable], ...]:
    """Those of our tables that exist."""
    tables = ((name, read_table(name)) for name in OWN_TABLES)
    return tuple((name, table) for name, table in tables if table is not None)


def read_table(name: str) -> NftTable | None:
    """A table of ours; None if it doesn't exist."""
    _require_rights()
    comment = nftlink.comment(name)
    if comment is None:
        return None
    if name == FORWARD_TABLE:  # don't read its maps, which may have thousands of elements
        listing = nftlink.table_digest(name)
    else:
        text = _FILLED.sub(r"\1", run(f"list table inet {name}", output=_STATELESS))
        listing = ruleset_digest(text)
    return NftTable(comment if comment.startswith(RULESET_DIGEST) else "", listing)


def read_counters(table: str) -> dict[str, tuple[int, int]]:
    """The named counters of a table of ours: name to (packets, bytes)."""
    listing = json.loads(run(f"list counters table inet {table}", output=_JSON))
    return {
        counter["name"]: (counter["packets"], counter["bytes"])
        for entry in listing["nftables"]
        if (counter := entry.get("counter"))
    }


def read_counted_set(name: str) -> dict[str, int]:
    """The elements of a set that packets add to, with the number of packets of each."""
    listing = json.loads(run(f"list set inet {NFT_TABLE} {name}", output=_JSON))
    packets: dict[str, int] = {}
    for entry in listing["nftables"]:
        for element in entry.get("set", {}).get("elem", []):
            inner: Any = element.get("elem", element) if isinstance(element, dict) else element
            if isinstance(inner, dict):
                packets[str(inner["val"])] = inner.get("counter", {}).get("packets", 0)
            else:
                packets[str(inner)] = 0
    return packets
