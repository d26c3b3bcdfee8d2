"""A client's messages, compared with dnspython."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import dns.update
import pytest

from ifdefault.dns import client
from ifdefault.dns.wire import WireError

NAME = "www.example.net"
ASKED = client.query(7, NAME, "A", recurse=False)


def answer(asked: bytes, *records: str, flags: int = dns.flags.AA, rcode: int = 0) -> bytes:
    response = dns.message.make_response(dns.message.from_wire(asked))
    response.flags |= flags
    response.set_rcode(dns.rcode.from_text(str(rcode)))
    for record in records:
        owner, ttl, class_, kind, rdata = record.split(" ", 4)
        response.answer.append(dns.rrset.from_text(owner, int(ttl), class_, kind, rdata))
    return bytes(response.to_wire())


@pytest.mark.parametrize("wanted", client.TYPES)
@pytest.mark.parametrize("recurse", [False, True])
def test_a_query_is_one(wanted: str, recurse: bool) -> None:
    read = dns.message.from_wire(client.query(4711, NAME, wanted, recurse=recurse))
    assert (read.id, read.opcode(), bool(read.flags & dns.flags.RD)) == (4711, 0, recurse)
    assert [str(rrset) for rrset in read.question] == [f"{NAME}. IN {wanted}"]
    assert (read.edns, read.payload) == (0, 1232)
    plain = dns.message.from_wire(client.query(1, NAME, wanted, recurse=recurse, edns=False))
    assert plain.edns == -1


def test_the_letter_case_of_a_query_counts() -> None:
    asked = client.mix_case(client.query(7, NAME, "A", recurse=False), 0b101 << 1)
    assert asked[12:29] == b"\3WwW\7example\3net\0"
    assert asked.lower() == client.query(7, NAME, "A", recurse=False).lower()
    told = answer(asked, f"{NAME}. 30 IN A 192.0.2.1")
    assert client.read_answer(told, asked) is not None
    for other in (told.lower(), told.replace(b"WwW", b"wWw")):
        assert client.read_answer(other, asked) is None
    plain = client.query(7, NAME, "A", recurse=False)  # as probes send it
    assert client.read_code(told, plain) == 0


@pytest.mark.parametrize(
    ("wanted", "records", "texts", "ttl"),
    [
        ("A", ["www.example.net. 30 IN A 192.0.2.2", "www.example.net. 5 IN A 192.0.2.1"],
         ("192.0.2.2", "192.0.2.1"), 5),
        ("AAAA", ["www.example.net. 30 IN AAAA 2001:db8::1"], ("2001:db8::1",), 30),
        ("NS", ["www.example.net. 60 IN NS NS1.www.example.net."], ("ns1.www.example.net",), 60),
        ("SOA", ["www.example.net. 60 IN SOA ns1.example.net. h.example.net. 4294967295 1 2 3 4"],
         ("4294967295",), 60),
        ("A", ["www.example.net. 9 IN CNAME a.example.net.", "a.example.net. 8 IN A 192.0.2.1"],
         ("192.0.2.1",), 8),
        ("A", ["www.example.net. 30 IN TXT x"], (), 0),
        ("A", [], (), 0),
    ],
)  # fmt: skip
def test_an_answer_is_read(
    wanted: str, records: list[str], texts: tuple[str, ...], ttl: int
) -> None:
    asked = client.query(7, NAME, wanted, recurse=False)
    told = client.read_answer(answer(asked, *records), asked)
    assert told == client.Response(0, True, False, texts, ttl)


def test_codes_and_flags_are_read() -> None:
    assert client.read_answer(answer(ASKED, rcode=5), ASKED) == client.Response(5, True, False)
    truncated = client.read_answer(answer(ASKED, flags=dns.flags.TC), ASKED)
    assert truncated == client.Response(0, False, True)
    bare = ASKED[:2] + bytes((0x80, 1)) + bytes(8)  # a server that can't read the question
    assert client.read_answer(bare, ASKED) == client.Response(1, False, False)
    assert client.code_name(5) == "REFUSED"
    assert client.code_name(23) == "RCODE 23"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        ASKED,
        answer(client.query(8, NAME, "A", recurse=False)),
        answer(client.query(7, "ftp.example.net", "A", recurse=False)),
        answer(client.query(7, NAME, "AAAA", recurse=False)),
        ASKED[:2] + bytes((0x80, 0)) + bytes(8),
    ],
)
def test_what_is_no_answer_to_it_is_passed_over(message: bytes) -> None:
    assert client.read_answer(message, ASKED) is None


def test_what_is_cut_off_is_no_answer() -> None:
    whole = answer(ASKED, "www.example.net. 30 IN A 192.0.2.1")
    records = whole[: whole.index(b"\xc0\x00\x02\x01") + 4]
    for length in range(len(ASKED) - 11, len(records)):
        with pytest.raises(WireError):
            client.read_answer(records[:length], ASKED)


def test_an_update_is_one() -> None:
    wire = client.update(
        9, "example.net", NAME, 30, ["192.0.2.1", "2001:db8::1"], ["192.0.2.2", "2001:db8::2"]
    )
    read = dns.message.from_wire(wire)
    assert isinstance(read, dns.update.UpdateMessage)
    assert [str(rrset) for rrset in read.zone] == ["example.net. IN SOA"]
    ours = dns.update.UpdateMessage("example.net", id=9)
    ours.absent(f"{NAME}.", "CNAME")
    ours.delete(f"{NAME}.", "A", "192.0.2.2")
    ours.delete(f"{NAME}.", "AAAA", "2001:db8::2")
    ours.add(f"{NAME}.", 30, "A", "192.0.2.1")
    ours.add(f"{NAME}.", 30, "AAAA", "2001:db8::1")
    assert read.to_text() == ours.to_text()


def test_the_answer_to_an_update_is_read() -> None:
    asked = client.update(9, "example.net", NAME, 30, [], ["192.0.2.2"])
    response = dns.message.make_response(dns.message.from_wire(asked))
    response.set_rcode(dns.rcode.NOTAUTH)
    assert client.read_update_code(response.to_wire(), asked) == 9
    assert client.read_update_code(asked, asked) is None
    another = client.update(8, "", NAME, 1, [], [])
    assert client.read_update_code(response.to_wire(), another) is None
    query = client.query(9, NAME, "A", recurse=False)
    assert client.read_update_code(answer(query), asked) is None
