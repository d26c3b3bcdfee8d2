"""Any response is read, ignored, or raises WireError."""

from __future__ import annotations

import dns.message
import dns.rrset
from hypothesis import given
from hypothesis import strategies as st

from ifdefault.dns import client, tsig
from ifdefault.dns.wire import WireError
from tests.unit.test_dns_client import answer

NAME = "www.example.net"
RECORDS = {
    "A": f"{NAME}. 30 IN A 192.0.2.1",
    "AAAA": f"{NAME}. 30 IN AAAA 2001:db8::1",
    "NS": f"{NAME}. 30 IN NS ns.{NAME}.",
    "SOA": f"{NAME}. 30 IN SOA ns.{NAME}. h.{NAME}. 7 1 2 3 4",
}
UPDATE = client.update(7, "example.net", NAME, 30, ["192.0.2.1"], ["2001:db8::1"])
CHANGES = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6)


def spoilt(message: bytes, changes: list[tuple[int, int]], length: int) -> bytes:
    data = bytearray(message)
    for at, value in changes:
        data[at % len(data)] = value
    return bytes(data[:length])


@given(st.sampled_from(sorted(RECORDS)), CHANGES, st.integers(0, 300))
def test_answers(wanted: str, changes: list[tuple[int, int]], length: int) -> None:
    asked = client.query(7, NAME, wanted, recurse=False)
    try:
        told = client.read_answer(spoilt(answer(asked, RECORDS[wanted]), changes, length), asked)
    except WireError:
        return
    assert told is None or all(text.isprintable() for text in told.texts)


@given(CHANGES, st.integers(0, 300), st.binary(max_size=40))
def test_answers_to_updates(changes: list[tuple[int, int]], length: int, more: bytes) -> None:
    whole = dns.message.make_response(dns.message.from_wire(UPDATE)).to_wire()
    message = spoilt(whole + more, changes, length)
    code = client.read_update_code(message, UPDATE)
    assert code is None or 0 <= code <= 15
    try:
        tsig.split(message)
    except WireError:
        return
