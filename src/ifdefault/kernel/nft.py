"""nftables through libnftables: load, check, list.

Rules: one call is one transaction of the kernel's. A handle acts in the network namespace of the
thread that made it. The library is loaded when first used, so that commands which don't need it
start fast and a host without it gets a sentence and not a traceback.
"""

from __future__ import annotations

import ctypes
import functools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ifdefault.kernel import nftlink
from ifdefault.kernel.netlink import open_ports
from ifdefault.kernel.uapi.netlink import NETLINK_NETFILTER
from ifdefault.model.errors import HostError, KernelError, Problem
from ifdefault.model.kernel import (
    FORWARD_TABLE,
    NFT_TABLE,
    OWN_TABLES,
    RULESET_DIGEST,
    NftTable,
    ruleset_digest,
)

_STATELESS, _JSON, _TERSE = 1 << 2, 1 << 4, 1 << 11
# the elements of a set that packets fill
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


@functools.cache
def _require_rights() -> None:
    """libnftables would print a sentence of its own on stderr, and say nothing of use to us."""
    capabilities = Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0]
    if not int(capabilities, 16) & _CAP_NET_ADMIN:
        what = "reading and changing rulesets needs CAP_NET_ADMIN"
        raise HostError(Problem("nftables", what, "run as root"))


@contextmanager
def _context() -> Iterator[ctypes.c_void_p]:
    """It has a netlink socket of its own as long as it lives."""
    library = _library()
    _require_rights()
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        yield context
    finally:
        library.nft_ctx_free(context)


def _run(context: ctypes.c_void_p, command: str) -> str:
    library = _library()
    failed = library.nft_run_cmd_from_buffer(context, command.encode())
    printed: bytes = library.nft_ctx_get_output_buffer(context)
    if failed:
        told: bytes = library.nft_ctx_get_error_buffer(context)
        raise KernelError(Problem("nft", _first_error(told.decode(errors="replace"))))
    return printed.decode(errors="replace")


def run(command: str, *, output: int = 0, dry_run: bool = False) -> str:
    """Run nft commands as one transaction and return what they print."""
    with _context() as context:
        _library().nft_ctx_output_set_flags(context, output)
        _library().nft_ctx_set_dry_run(context, dry_run)
        return _run(context, command)


def _first_error(told: str) -> str:
    for line in told.splitlines():
        _, found, words = line.partition("Error: ")
        if found:
            return words.lower()
    return told.strip() or "nft failed without a word"


def _batch(table: str, text: str) -> str:
    """What replaces a table of ours by `text` in one transaction, marked with the text's digest.

    nft 1.0.6 knows no `destroy`: adding first makes the deletion always succeed.
    """
    name = f"table inet {table}"
    if not text:
        return f"add {name}\ndelete {name}\n"
    marked = text.replace("{\n", f'{{\n\tcomment "{ruleset_digest(text)}"\n', 1)
    return f"add {name}\ndelete {name}\n{marked}"


def load(table: str, text: str) -> frozenset[int]:
    """Replace a table of ours by `text`; "" deletes it. The port ids that this process has with
    nf_tables, of which one asked for it: the library tells nobody which is its own."""
    with _context() as context:
        _run(context, _batch(table, text))
        return open_ports(NETLINK_NETFILTER)


def check(table: str, text: str) -> None:
    """Let the kernel check a table of ours without loading it; KernelError says what it refuses."""
    run(_batch(table, text), dry_run=True)


def ruleset_json() -> str:
    """Every table of this host, ours too, as `nft -j list ruleset` prints it, without the elements
    of named sets."""
    return run("list ruleset", output=_JSON | _STATELESS | _TERSE)


def read_tables() -> tuple[tuple[str, NftTable], ...]:
    """Those of our tables that are there."""
    found = ((name, read_table(name)) for name in OWN_TABLES)
    return tuple((name, table) for name, table in found if table is not None)


def read_table(name: str) -> NftTable | None:
    """A table of ours as it stands; None if it isn't there."""
    _require_rights()
    comment = nftlink.comment(name)
    if comment is None:
        return None
    if name == FORWARD_TABLE:  # its maps hold thousands of services, and nobody looks at those
        listing = nftlink.outline(name)
    else:
        text = _FILLED.sub(r"\1", run(f"list table inet {name}", output=_STATELESS))
        listing = ruleset_digest(text)
    return NftTable(comment if comment.startswith(RULESET_DIGEST) else "", listing)


def read_counters(table: str) -> dict[str, tuple[int, int]]:
    """The named counters of a table of ours: name to (packets, bytes)."""
    told = json.loads(run(f"list counters table inet {table}", output=_JSON))
    return {
        found["name"]: (found["packets"], found["bytes"])
        for entry in told["nftables"]
        if (found := entry.get("counter"))
    }


def read_counted_set(name: str) -> dict[str, int]:
    """The elements of one of our sets that packets fill: element to packets seen."""
    told = json.loads(run(f"list set inet {NFT_TABLE} {name}", output=_JSON))
    found: dict[str, int] = {}
    for entry in told["nftables"]:
        for element in entry.get("set", {}).get("elem", []):
            inner: Any = element.get("elem", element) if isinstance(element, dict) else element
            if isinstance(inner, dict):
                found[str(inner["val"])] = inner.get("counter", {}).get("packets", 0)
            else:
                found[str(inner)] = 0
    return found
