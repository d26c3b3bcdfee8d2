"""DNS cookies, by the vectors of RFC 9018, appendix A."""

from __future__ import annotations

import pytest

from ifdefault.dns.cookies import Cookies, pack

SECRET, OLD, NEW = (
    bytes.fromhex(text)
    for text in (
        "e5e973e5a6b2a43f48e7dc849e37bfcf",
        "dd3bdf9344b678b185a6f5cb60fca715",
        "445536bcd2513298075a5d379663c962",
    )
)
LONG = "2001:db8:220:1:59de:d0f4:8769:82b8"


@pytest.mark.parametrize(
    ("secret", "client", "unix_s", "asked", "good", "answered"),
    [
        # A.1, a new cookie
        (
            *(SECRET, "198.51.100.100", 1559731985, "2464c4abcf10c957", False),
            "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
        ),
        # A.2, it is renewed after 40 minutes
        (
            *(SECRET, "198.51.100.100", 1559734385),
            *("2464c4abcf10c957010000005cf79f111f8130c3eee29480", True),
            "2464c4abcf10c957010000005cf7a871d4a564a1442aca77",
        ),
        # A.3, reserved bytes are whatever they are; its age is above an hour there
        (
            *(SECRET, "203.0.113.203", 1559734700),
            *("fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", False),
            "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e",
        ),
        (
            *(SECRET, "203.0.113.203", 1559727985),
            *("fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5", True),
            "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5",
        ),
        # A.4, IPv6, and the secret was another
        (
            *(NEW, LONG, 1559741961),
            *("22681ab97d52c298010000005cf7c57926556bd0934c72f8", False),
            "22681ab97d52c298010000005cf7c609a6bb79d16625507a",
        ),
        (
            *(OLD, LONG, 1559741961),
            *("22681ab97d52c298010000005cf7c57926556bd0934c72f8", True),
            "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
        ),
    ],
)
def test_vectors(
    secret: bytes, client: str, unix_s: int, asked: str, good: bool, answered: str
) -> None:
    cookies = Cookies(secret)
    for _ in range(2):
        judged, option = cookies.check(bytes.fromhex(asked), client, unix_s)
        assert (judged, option[:4], option[4:].hex()) == (good, b"\0\x0a\0\x18", answered)


def test_how_long_it_is_good_for() -> None:
    made_s = 1_600_000_000
    ages = {-301: (False, True), -300: (True, False), 0: (True, False), 1800: (True, False)}
    ages |= {1801: (True, True), 3600: (True, True), 3601: (False, True)}
    for age_s, (good, another) in ages.items():
        cookies = Cookies(SECRET)
        cookie = cookies.make(b"12345678", pack("192.0.2.1"), made_s)
        judged, option = cookies.check(cookie, "192.0.2.1", made_s + age_s)
        assert (judged, option[4:] != cookie) == (good, another), age_s


def test_time_may_wrap() -> None:
    cookies = Cookies(SECRET)
    cookie = cookies.make(b"12345678", pack("192.0.2.1"), (1 << 32) - 5)
    assert cookies.check(cookie, "192.0.2.1", (1 << 32) + 5)[0]


def test_it_is_good_for_one_client_as_it_is() -> None:
    cookies = Cookies(SECRET)
    cookie = cookies.make(b"12345678", pack("192.0.2.1"), 1000)
    assert cookies.check(cookie, "192.0.2.1", 1000)[0]
    assert not cookies.check(cookie, "192.0.2.2", 1000)[0]
    for at in range(24):
        other = cookie[:at] + bytes((cookie[at] ^ 1,)) + cookie[at + 1 :]
        assert not cookies.check(other, "192.0.2.1", 1000)[0], at
    for size in (8, 16, 23, 25, 40):
        assert not cookies.check(cookie.ljust(40)[:size], "192.0.2.1", 1000)[0]


def test_memory_is_bounded_and_any_client_is_served() -> None:
    cookies = Cookies(SECRET)
    for n in range(9000):
        assert cookies.check(n.to_bytes(8, "big"), f"client {n}", 1000)[1]
    assert len(cookies._cache) <= 4096


def test_a_secret_of_another_length() -> None:
    for secrets in ((), (b"12345678",), (SECRET, b"12345678")):
        with pytest.raises(ValueError, match="no secrets of 16 bytes"):
            Cookies(*secrets)


def test_a_cookie_by_the_former_secret() -> None:
    """RFC 9018, appendix A.4: it is valid, and replaced by one that the new secret makes."""
    asked = "22681ab97d52c298010000005cf7c57926556bd0934c72f8"
    judged, option = Cookies(NEW, OLD).check(bytes.fromhex(asked), LONG, 1559741961)
    assert (judged, option[4:].hex()) == (True, "22681ab97d52c298010000005cf7c609a6bb79d16625507a")
