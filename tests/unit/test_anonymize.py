"""Anonymized texts: public addresses, MACs and names are others, and still fit each other."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifdefault.host.bug_report.anonymize import Anonymizer

ANONYMIZER = Anonymizer(b"key", ("example.org", "web1", ""))
TEXT = ANONYMIZER.text


@pytest.mark.parametrize(
    "text",
    [
        *("10.1.2.3/8", "127.0.0.1", "192.168.0.0/16", "203.0.113.10", "198.18.5.1", "0.0.0.0/0"),
        *("224.0.0.251", "255.255.255.255", "100.64.1.1", "::", "::1", "fe80::1", "ff02::1/128"),
        *("2001:db8::10/64", "fd00:1:2::abcd:1234:5678:9abc", "::/0", "64:ff9b::/96"),
        *("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01"),
        *("04:55:09", "256.1.1.1", "1.2.3.4.5", "a::b::c", "status.sock", "5.9.10.7/99", "web10"),
    ],
)
def test_what_is_not_public_stays(text: str) -> None:
    assert TEXT(text) == text


def test_the_same_is_replaced_by_the_same() -> None:
    new = TEXT("5.9.10.7")
    assert new != "5.9.10.7"
    assert ipaddress.ip_address(new).is_global
    for form in (
        "via {} dev",
        "http://{}:443/x",
        "src={},",
        "::ffff:{}",
        "({})",
        '"{}/24"',
        "{}: x",
    ):
        assert TEXT(form.format("5.9.10.7")) == form.format(new)
    new = TEXT("2a01:4f8:1:2::7")
    assert new.endswith("::7")
    assert ipaddress.ip_address(new).is_global
    for form in ("via {} dev", "[{}]:443", '"{}/64"', "{}: gone", "{}%eth0"):
        assert TEXT(form.format("2a01:4f8:1:2::7")) == form.format(new)


def test_a_mac_and_the_addresses_made_of_it() -> None:
    mac = TEXT("52:54:00:12:34:56")
    assert mac != "52:54:00:12:34:56"
    assert int(mac[:2], 16) & 3 == 2
    assert TEXT("52:54:00:12:34:56\n") == mac + "\n"
    data = bytes.fromhex(mac.replace(":", ""))
    eui = bytes((data[0] ^ 2,)) + data[1:3] + b"\xff\xfe" + data[3:]
    for prefix in ("fe80::", "fd00::", "2a01:4f8:1:2:"):
        address = ipaddress.ip_address(TEXT(prefix + "5054:ff:fe12:3456"))
        assert address.packed[8:] == eui


def test_names_keep_what_is_below_what() -> None:
    zone = TEXT("example.org")
    assert zone.endswith(".org")
    assert "example" not in zone
    www = TEXT("www.Example.org")
    assert www.endswith("." + zone)
    assert "www" not in www
    assert TEXT("*.example.org web1 web1.example.org").count(zone) == 2
    assert TEXT("notexample.org ifdefault.toml") == "notexample.org ifdefault.toml"
    assert "web1" not in TEXT("host web1: web1.example.org")
    assert re.fullmatch(rf"to n[0-9a-f]+@{zone}", TEXT("to John.Doe+x@example.org"))


def test_another_archive_has_others() -> None:
    assert Anonymizer(b"other").text("5.9.10.7 2a01::1") != Anonymizer(b"key").text(
        "5.9.10.7 2a01::1"
    )


def _shared(a: int, b: int, size: int) -> int:
    return size - (a ^ b).bit_length()


@given(st.integers(0, 2**32 - 1), st.integers(0, 31), st.integers(0, 2**32 - 1))
def test_prefixes_still_match(value: int, bits: int, other: int) -> None:
    mask = (1 << (32 - bits)) - 1
    near = value & ~mask | other & mask
    a, b = ipaddress.IPv4Address(value), ipaddress.IPv4Address(near)
    new_a, new_b = (ipaddress.IPv4Address(TEXT(str(address))) for address in (a, b))
    assert _shared(int(new_a), int(new_b), 32) == _shared(value, near, 32)
    assert new_a.is_global == a.is_global
    net = ipaddress.ip_network((value & ~mask, bits))
    assert new_a in ipaddress.ip_network(TEXT(str(net)))


@given(st.integers(0, 2**125 - 1), st.integers(3, 64), st.integers(0, 2**125 - 1))
def test_ipv6_prefixes_still_match(value: int, bits: int, other: int) -> None:
    value |= 0b001 << 125
    mask = (1 << (128 - bits)) - 1
    near = value & ~mask | other & mask
    a, b = ipaddress.IPv6Address(value), ipaddress.IPv6Address(near)
    new_a, new_b = (ipaddress.IPv6Address(TEXT(str(address))) for address in (a, b))
    assert min(64, _shared(int(new_a), int(new_b), 128)) == min(64, _shared(value, near, 128))
    assert new_a.is_global == a.is_global
    net = ipaddress.ip_network((value & ~mask, bits))
    assert new_a in ipaddress.ip_network(TEXT(str(net)))
