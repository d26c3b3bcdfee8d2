"""Names and records on the wire."""

from __future__ import annotations

import dns.name
import pytest

from ifdefault.dns import wire

TXT = 16


@pytest.mark.parametrize("text", ["", "net", "www.example.net", "*.a_b.example", "x" * 63 + ".y"])
def test_names_there_and_back(text: str) -> None:
    encoded = wire.encode_name(text)
    assert encoded == dns.name.from_text(text).to_wire()
    assert wire.decode_name(b"??" + encoded + b"!", 2) == (text, 2 + len(encoded))


def test_names_in_other_forms() -> None:
    assert wire.encode_name("WWW.Example.Net.") == wire.encode_name("www.example.net")
    assert wire.encode_name(".") == b"\0"
    assert wire.decode_name(b"\6a.b \\\xff\0") == (r"a\.b\032\\\255", 8)


@pytest.mark.parametrize("text", ["a..b", ".a", "x" * 64, "ä.net", ".".join(["x" * 63] * 4)])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match="name"):
        wire.encode_name(text)


def test_pointers_are_followed_backwards() -> None:
    data = b"\3net\0\7Example\xc0\0\3www\xc0\5"
    assert wire.decode_name(data, 15) == ("www.example.net", 21)


def test_few_pointers_are_followed() -> None:
    """A packet of names with many each would take 500 times as long to read as a query."""

    def chain(pointers: int) -> bytes:
        return b"\3net\0" + b"".join(
            (0xC000 | (0 if n == 0 else 5 + 2 * (n - 1))).to_bytes(2, "big")
            for n in range(pointers)
        )

    assert wire.decode_name(chain(10), 23)[0] == "net"
    with pytest.raises(wire.WireError, match="too many"):
        wire.decode_name(chain(11), 25)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1",
        b"\1a",
        b"\xc0",
        b"\xc0\0",  # itself
        b"\xc0\2\0",  # forward
        b"\1a\xc0\0",  # a loop
        b"\x40" + b"x" * 64 + b"\0",
        b"\x80\0",
        (b"\x3f" + b"x" * 63) * 4 + b"\0",
    ],
)
def test_what_can_not_be_read(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.read_name(data, 0)


def test_a_name_is_squeezed_by_its_longest_end() -> None:
    name = wire.encode_name
    places = wire.compression_offsets(name("www.example.net"))
    assert wire.compress(name("www.example.net"), places) == b"\xc0\x0c"
    assert wire.compress(name("ns.example.net"), places) == b"\2ns\xc0\x10"
    assert wire.compress(name("ns.xexample.net"), places) == b"\2ns\x08xexample\xc0\x18"
    assert wire.compress(name("example.com"), places) == name("example.com")
    assert wire.compress(b"\0", places) == b"\0"


def test_only_old_types_have_names_that_are_squeezed() -> None:
    name = wire.encode_name("www.example.net")
    places = wire.compression_offsets(name)
    soa = name + name + bytes(20)
    assert wire.record(name, wire.SOA, 1, soa, places).endswith(b"\xc0\x0c\xc0\x0c" + bytes(20))
    assert wire.record(name, wire.NS, 1, name, places).endswith(b"\0\2\xc0\x0c")
    assert wire.record(name, wire.HTTPS, 1, b"\0\1" + name, places).endswith(name)


def test_a_record_is_read_as_it_was_written() -> None:
    name = wire.encode_name("a.example")
    made = wire.record(name, TXT, 30, b"\1x", {})
    assert wire.read_record(made, 0) == (name, TXT, wire.IN, 30, b"\1x", len(made))
    for size in range(len(made)):
        with pytest.raises(wire.WireError):
            wire.read_record(made[:size], 0)
