"""Who may transfer zones, and whose responses are signed."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.tsig
import pytest

from ifdefault.dns import tsig, wire
from ifdefault.dns.answer import Responder
from ifdefault.dns.secondaries import SecondaryAccess
from ifdefault.dns.table import Table
from ifdefault.dns.tsig_key import LoadedKey
from ifdefault.model.dns import AddressRecord, Published, Record, Zone

NOW = 1_000.0  # on a clock that starts when it likes
UNIX = 1_700_000_000.0
KEY, OTHER = (
    LoadedKey("k.example", "hmac-sha256", b"one"),
    LoadedKey("k.example", "hmac-sha256", b"two"),
)
OPEN, KEYED, BOTH, BROKEN, STRANGER = (f"192.0.2.{n}" for n in range(1, 6))
TEXTS = tuple(Record(16, bytes([200]) + f"{n:0200}".encode(), "") for n in range(3))


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def guard(told: list[str]) -> SecondaryAccess:
    names = (
        Published("www.example", "failover", 30, (AddressRecord("a", "203.0.113.10"),)),
        Published("long.www.example", "rotate", 30, (), TEXTS),
        *(
            Published(
                f"n{n}.www.example", "rotate", 30, (AddressRecord("a", "203.0.113.10"),), TEXTS
            )
            for n in range(60)
        ),
    )
    zone = Zone("www.example", 7, "hostmaster.www.example", ("ns.www.example",), names)
    responder = Responder(Table.build([zone]), secrets=[bytes(16)])
    responder.epoch_offset_s = UNIX - NOW
    secondaries: dict[str, list[tsig.TsigKey | None]] = {
        OPEN: [None],
        KEYED: [KEY],
        BOTH: [None, KEY],
        BROKEN: [],
    }
    return SecondaryAccess(responder, secondaries, told.append)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: UNIX)  # dnspython's


def query(
    kind: str = "SOA", key: LoadedKey | None = None, *, name: str = "www.example."
) -> tuple[dns.message.Message, bytes]:
    message = dns.message.make_query(name, kind, use_edns=0, payload=1232)
    if key is not None:
        message.use_tsig(dns.tsig.Key(key.name, key.secret, key.algorithm))
    return message, message.to_wire()


def read(answer: bytes, asked: dns.message.Message) -> dns.message.Message:
    """The response, with its signature verified if the query had one."""
    return dns.message.from_wire(answer, keyring=asked.keyring, request_mac=asked.mac)


def test_the_answer_bears_the_id_of_the_query(guard: SecondaryAccess) -> None:
    """A forwarder may have changed it; the original ID is only for the MAC (RFC 8945, 4.3.1)."""
    asked, wire = query(key=KEY)
    forwarded = (asked.id ^ 0x1234).to_bytes(2, "big") + wire[2:]
    for answer in (
        guard.udp(forwarded, KEYED, "a", NOW),
        *guard.tcp(forwarded, KEYED, "a", NOW),
        guard.udp(forwarded[:-20] + bytes(20), KEYED, "a", NOW),  # BADSIG
    ):
        assert answer is not None
        assert answer[:2] == forwarded[:2]
    back = wire[:2] + guard.tcp(forwarded, KEYED, "a", NOW)[0][2:]
    assert read(back, asked).had_tsig


@pytest.mark.parametrize(
    ("client", "key", "code"),
    [
        (OPEN, None, "NOERROR"),
        (KEYED, None, "REFUSED"),
        (KEYED, KEY, "NOERROR"),
        (BOTH, None, "NOERROR"),
        (BOTH, KEY, "NOERROR"),
        (BROKEN, None, "REFUSED"),
        (BROKEN, KEY, "NOTAUTH"),
        (STRANGER, None, "REFUSED"),
        (STRANGER, KEY, "NOTAUTH"),
        (OPEN, KEY, "NOTAUTH"),
        (KEYED, OTHER, "NOTAUTH"),
    ],
)
def test_who_may_transfer(
    guard: SecondaryAccess, told: list[str], client: str, key: LoadedKey | None, code: str
) -> None:
    asked, packet = query("AXFR", key)
    answers = guard.tcp(packet, client, "a", NOW)
    assert dns.rcode.to_text(dns.rcode.Rcode(answers[0][3] & 15)) == code
    did = [f"secondary {client}: transferred www.example, serial 7"] * (code == "NOERROR")
    assert told == did
    if code != "NOERROR":
        assert len(answers) == 1
        return
    assert len(answers) > 1
    context, kinds = None, []
    for answer in answers:
        message = dns.message.from_wire(
            answer,
            keyring=asked.keyring,
            request_mac=asked.mac,
            xfr=True,
            tsig_ctx=context,
            multi=True,
            one_rr_per_rrset=True,
        )
        assert message.had_tsig == (key is not None)
        context = message.tsig_ctx
        kinds += [dns.rdatatype.to_text(rrset.rdtype) for rrset in message.answer]
    assert kinds[0] == kinds[-1] == "SOA"
    assert (kinds.count("A"), kinds.count("TXT")) == (61, 61 * 3)


@pytest.mark.parametrize("client", [KEYED, BOTH])
def test_a_signed_query_gets_a_signed_answer(guard: SecondaryAccess, client: str) -> None:
    asked, packet = query("SOA", KEY)
    answer = guard.udp(packet, client, "a", NOW)
    assert answer is not None
    message = read(answer, asked)
    assert message.had_tsig
    assert message.answer[0].rdtype == dns.rdatatype.SOA


def test_a_signature_that_does_not_fit_any_more(guard: SecondaryAccess) -> None:
    """The response fits into 1232 bytes, but not with 100 more."""
    name = "long.www.example."
    message = dns.message.make_query(name, "TXT", use_edns=0, payload=700)
    plain = guard.udp(message.to_wire(), KEYED, "a", NOW)
    assert plain is not None
    assert not plain[2] & 2
    assert 700 - 100 < len(plain) <= 700
    message.use_tsig(dns.tsig.Key(KEY.name, KEY.secret, KEY.algorithm))
    answer = guard.udp(message.to_wire(), KEYED, "a", NOW)
    assert answer is not None
    told = read(answer, message)
    assert told.had_tsig
    assert told.flags & dns.flags.TC
    assert not told.answer


def test_a_clock_that_differs(guard: SecondaryAccess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: UNIX - 1000)
    asked, packet = query("SOA", KEY)
    (answer,) = guard.tcp(packet, KEYED, "a", NOW)
    with pytest.raises(dns.tsig.PeerBadTime):
        read(answer, asked)


def test_a_query_is_told_once_a_serial(guard: SecondaryAccess, told: list[str]) -> None:
    for _ in range(2):
        guard.udp(query("SOA")[1], OPEN, "a", NOW)
        guard.udp(query("A")[1], OPEN, "a", NOW)
        guard.udp(query("SOA")[1], STRANGER, "a", NOW)
        guard.tcp(query("SOA", name="other.example.")[1], OPEN, "a", NOW)
    assert told == [f"secondary {OPEN}: queried the SOA of www.example, serial 7"]


@pytest.mark.parametrize("key", [KEY, OTHER], ids=["too long", "BADSIG"])
def test_a_response_to_edns_has_edns(guard: SecondaryAccess, key: LoadedKey) -> None:
    message = dns.message.make_query("long.www.example.", "TXT", use_edns=0, payload=700)
    message.use_tsig(dns.tsig.Key(key.name, key.secret, key.algorithm))
    answer = guard.udp(message.to_wire(), KEYED, "a", NOW)
    assert answer is not None
    told = dns.message.from_wire(answer, keyring=False)
    assert (told.edns, told.question) == (0, message.question)


@pytest.mark.parametrize("client", [KEYED, STRANGER])
def test_what_is_no_query_gets_no_more_than_from_the_responder(
    guard: SecondaryAccess, client: str
) -> None:
    signed = query("SOA", KEY)[1]
    for cut in range(len(signed)):
        answer = guard.udp(signed[:cut], client, "a", NOW)
        assert answer is None or answer[3] & 15 == wire.FORMERR
    plain, signature = tsig.split(signed)
    assert signature is not None
    assert guard.udp(plain, client, "a", NOW) is not None
