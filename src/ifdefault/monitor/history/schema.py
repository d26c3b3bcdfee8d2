"""The tables of the history's file, and how values are stored in them.

Rules: `VERSION` grows with each change that an older program couldn't read. Rows are small: a year
of 62 paths has half a million hours. What is 0 takes no room, so that most columns don't.
"""

from __future__ import annotations

import sqlite3
from itertools import zip_longest
from typing import Any

APPLICATION_ID = 0x49664466  # "IfDf": known by file(1)
VERSION = 1
FILE = "history.sqlite"

_TALLY = """
    at INTEGER NOT NULL,         -- when it began, in seconds since the epoch
    uplink INTEGER NOT NULL,
    family INTEGER NOT NULL,
    answered INTEGER NOT NULL,   -- probes
    lost INTEGER NOT NULL,
    rtt_us INTEGER NOT NULL,     -- the sum of all answers
    rtt BLOB NOT NULL,           -- answers by model.report.RTT_BUCKETS_S, see `pack`
    up_ms INTEGER NOT NULL,      -- how long the path was in each state
    degraded_ms INTEGER NOT NULL,
    recovering_ms INTEGER NOT NULL,
    down_ms INTEGER NOT NULL,
    PRIMARY KEY (at, uplink, family)
"""
TABLES = f"""
CREATE TABLE uplink (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE minute ({_TALLY}) WITHOUT ROWID;
CREATE TABLE hour ({_TALLY}) WITHOUT ROWID;
CREATE TABLE traffic (           -- by the hour
    at INTEGER NOT NULL, uplink INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL,
    PRIMARY KEY (at, uplink)
) WITHOUT ROWID;
CREATE TABLE span (              -- a path was in a state; until is null as long as it is
    id INTEGER PRIMARY KEY,
    uplink INTEGER NOT NULL, family INTEGER NOT NULL,
    state TEXT NOT NULL, since REAL NOT NULL, until REAL, cause TEXT NOT NULL
);
CREATE INDEX span_since ON span (since);
CREATE TABLE target (            -- probes during an outage, by all paths of its family
    span INTEGER NOT NULL, uplink INTEGER NOT NULL, family INTEGER NOT NULL,
    probe TEXT NOT NULL, answered INTEGER NOT NULL, lost INTEGER NOT NULL,
    PRIMARY KEY (span, uplink, family, probe)
) WITHOUT ROWID;
CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL, kind TEXT NOT NULL, uplink TEXT NOT NULL, text TEXT NOT NULL,
    severity TEXT NOT NULL, serial INTEGER NOT NULL  -- 0: of the monitor itself
);
CREATE TABLE known (             -- one row: until when all this is known, and what it continues
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seen REAL NOT NULL, serial INTEGER NOT NULL, boot TEXT NOT NULL, rolled INTEGER NOT NULL
);
INSERT INTO known VALUES (1, 0, -1, '', 0);
CREATE TABLE counter (           -- bytes of interfaces at that time
    uplink INTEGER PRIMARY KEY, bytes_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""
COLUMNS = "answered, lost, rtt_us, rtt, up_ms, degraded_ms, recovering_ms, down_ms"
SUMS = ", ".join(
    f"{'pack_sum' if name == 'rtt' else 'sum'}({name})" for name in COLUMNS.split(", ")
)
ADDED = ", ".join(  # of an upsert
    f"{name} = pack_add({name}, excluded.{name})"
    if name == "rtt"
    else f"{name} = {name} + excluded.{name}"
    for name in COLUMNS.split(", ")
)


def pack(counts: tuple[int, ...]) -> bytes:
    """Counts as a row of LEB128 numbers, without zeros at the end."""
    packed, end = bytearray(), len(counts)
    while end and not counts[end - 1]:
        end -= 1
    for count in counts[:end]:
        while count > 127:
            packed.append(count & 127 | 128)
            count >>= 7
        packed.append(count)
    return bytes(packed)


def unpack(packed: bytes) -> tuple[int, ...]:
    counts, count, shift = [], 0, 0
    for byte in packed:
        count |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            counts.append(count)
            count = shift = 0
    return tuple(counts)


def pack_add(one: bytes, other: bytes) -> bytes:
    return pack(tuple(a + b for a, b in zip_longest(unpack(one), unpack(other), fillvalue=0)))


def add_functions(db: sqlite3.Connection) -> None:
    kind: Any = PackSum
    db.create_aggregate("pack_sum", 1, kind)
    db.create_function("pack_add", 2, pack_add, deterministic=True)


class PackSum:
    """The aggregate function pack_sum."""

    def __init__(self) -> None:
        self._sums: tuple[int, ...] = ()

    def step(self, packed: bytes, /) -> None:
        counts = unpack(packed)
        self._sums = tuple(a + b for a, b in zip_longest(self._sums, counts, fillvalue=0))

    def finalize(self) -> bytes:
        return pack(self._sums)
