"""Signatures beside dnspython's, which knows nothing of ours."""

from __future__ import annotations

import dns.exception
import dns.message
import dns.rcode
import dns.tsig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifdefault.dns import tsig, wire
from ifdefault.dns.tsig_key import ALGORITHMS, LoadedKey

NOW = 1_700_000_000
KEY = LoadedKey("transfer.example", "hmac-sha256", b"a secret that nobody knows, or so")


def theirs(key: LoadedKey) -> dns.tsig.Key:
    return dns.tsig.Key(key.name, key.secret, key.algorithm)


def signed(key: LoadedKey = KEY) -> tuple[dns.message.QueryMessage, bytes]:
    """A query, and the same signed by dnspython at NOW."""
    query = dns.message.make_query("www.example.", "SOA", use_edns=0)
    asked = dns.message.from_wire(query.to_wire())
    asked.use_tsig(theirs(key))
    asked.to_wire()
    assert asked.tsig is not None
    unsigned = asked.tsig[0].replace(mac=b"")
    rdata, _ = dns.tsig.sign(  # type: ignore[no-untyped-call]
        query.to_wire(), theirs(key), unsigned, NOW
    )
    names = wire.encode_name(key.name), wire.encode_name(key.algorithm)
    signature = tsig.Signature(*names, NOW, rdata.fudge, b"", query.id)
    return query, tsig.append(query.to_wire(), signature, rdata.mac)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_query_that_others_signed(algorithm: str) -> None:
    key = LoadedKey("k", algorithm, b"s" * 20)
    query, message = signed(key)
    plain, signature = tsig.split(message)
    bare = dns.message.from_wire(plain)
    assert (bare.id, bare.question) == (query.id, query.question)
    assert signature is not None
    assert len(signature.mac) == ALGORITHMS[algorithm]
    assert tsig.verify(plain, signature, key, NOW) == 0


def test_what_is_wrong_with_a_signature() -> None:
    _, message = signed()
    plain, signature = tsig.split(message)
    assert signature is not None

    def judged(*, key: LoadedKey = KEY, text: bytes = plain, now: float = NOW) -> int:
        return tsig.verify(text, signature, key, now)

    assert judged() == 0
    assert judged(text=plain[:-1] + b"\1") == tsig.BADSIG
    assert judged(key=LoadedKey(KEY.name, KEY.algorithm, b"another")) == tsig.BADSIG
    assert judged(key=LoadedKey("other", KEY.algorithm, KEY.secret)) == tsig.BADKEY
    assert judged(key=LoadedKey(KEY.name, "hmac-sha512", KEY.secret)) == tsig.BADKEY
    assert judged(now=NOW + 300) == judged(now=NOW - 300) == judged(now=NOW + 300.9) == 0
    assert judged(now=NOW + 301) == judged(now=NOW - 301) == tsig.BADTIME
    # a wrong signature is told before a wrong time (RFC 8945, 5.2)
    assert judged(text=plain[:-1] + b"\1", now=NOW + 301) == tsig.BADSIG


def test_the_answers_to_one_query_hang_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a zone transfer; dnspython verifies each by the previous one."""
    monkeypatch.setattr("time.time", lambda: NOW)
    query, message = signed()
    _, signature = tsig.split(message)
    assert signature is not None
    signer = tsig.Signer(KEY, signature.mac)
    answers = []
    for _ in range(3):
        plain = dns.message.make_response(query).to_wire()
        answers.append(signer.sign(plain, NOW))
        assert len(answers[-1]) == len(plain) + signer.extra_bytes
    context = None
    for answer in answers:
        read = dns.message.from_wire(
            answer,
            keyring=theirs(KEY),
            request_mac=signature.mac,
            xfr=True,
            tsig_ctx=context,
            multi=True,
        )
        assert read.had_tsig
        context = read.tsig_ctx
    with pytest.raises(dns.tsig.BadSignature):  # the second isn't a first
        dns.message.from_wire(answers[1], keyring=theirs(KEY), request_mac=signature.mac)


def test_a_fudge_of_0_permits_the_same_second() -> None:
    """As BIND and Knot, which compare whole seconds."""
    query, _ = signed()
    names = wire.encode_name(KEY.name), wire.encode_name(KEY.algorithm)
    unsigned = tsig.Signature(*names, NOW, 0, b"", query.id)
    message = tsig.append(query.to_wire(), unsigned, tsig._mac(KEY, b"", query.to_wire(), unsigned))
    plain, signature = tsig.split(message)
    assert signature is not None
    found = [tsig.verify(plain, signature, KEY, NOW + s) for s in (-0.1, 0.0, 0.9, 1.0)]
    assert found == [tsig.BADTIME, 0, 0, tsig.BADTIME]


def refused(plain: bytes) -> bytes:
    response = dns.message.make_response(dns.message.from_wire(plain))
    response.set_rcode(dns.rcode.NOTAUTH)
    return response.to_wire()


@pytest.mark.parametrize("error", [tsig.BADKEY, tsig.BADSIG])
def test_a_refusal_without_a_signature(error: int) -> None:
    _, message = signed()
    plain, signature = tsig.split(message)
    assert signature is not None
    told, its = tsig.split(tsig.refuse(refused(plain), signature, KEY, error, NOW))
    read = dns.message.from_wire(told)
    assert read.rcode() == dns.rcode.NOTAUTH
    assert read.question == dns.message.from_wire(plain).question
    assert its is not None
    assert (its.error, its.mac, its.owner) == (error, b"", signature.owner)


def test_a_wrong_clock_is_told_signed() -> None:
    _, message = signed()
    plain, signature = tsig.split(message)
    assert signature is not None
    answer = tsig.refuse(refused(plain), signature, KEY, tsig.BADTIME, NOW + 1000)
    told, its = tsig.split(answer)
    assert its is not None
    assert (its.error, its.signed_s, int.from_bytes(its.other, "big")) == (18, NOW, NOW + 1000)
    assert tsig.verify(told, its, KEY, NOW, signature.mac) == 0


def test_what_is_not_signed() -> None:
    plain = dns.message.make_query("www.example.", "A", use_edns=0).to_wire()
    assert tsig.split(plain) == (plain, None)


@given(st.binary(max_size=300), st.integers(0, 400))
def test_whatever_comes_is_read_or_refused(noise: bytes, cut: int) -> None:
    """For any bytes, and any prefix of a message with a TSIG."""
    _, message = signed()
    for data in (noise, message[:cut] + noise, message[: cut % len(message)]):
        try:
            plain, signature = tsig.split(data)
        except wire.WireError:
            continue
        if signature is not None:
            assert tsig.verify(plain, signature, KEY, NOW) in (0, 16, 17, 18)


def test_a_message_has_one_signature() -> None:
    _, message = signed()
    twice = tsig.Signer(KEY).sign(message, NOW)
    with pytest.raises(wire.WireError, match="record after TSIG"):
        tsig.split(twice)
