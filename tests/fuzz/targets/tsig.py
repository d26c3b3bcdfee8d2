"""TSIG: signatures of messages that anybody may have sent, and key files.

An input is a message, or the text of a key file if it begins with "k" or "#".
"""

from __future__ import annotations

from ifdefault.dns import tsig, wire
from ifdefault.dns.tsig_key import ALGORITHMS, BadKey, LoadedKey, parse
from tests.unit.dnszones import asking

KIND = "bytes"
KEYS = [LoadedKey("k.example", algorithm, b"secret") for algorithm in ALGORITHMS]
NOW = 1_000_000.0


def seeds() -> list[bytes]:
    query = asking("").to_wire()
    signed = [tsig.Signer(key).sign(query, NOW) for key in KEYS]
    texts = (
        'key "k.example" {\n\talgorithm hmac-sha256;\n\tsecret "c2VjcmV0";\n};\n',
        "# of ns2\nkey k.example. { secret /+//AAA=; algorithm HMAC-SHA512.; }; // end",
        "key k { algorithm hmac-md5.sig-alg.reg.int; secret c2VjcmV0; /* old */ };",
    )
    return [query, *signed, *map(str.encode, texts)]


def one(data: bytes) -> None:
    if data[:1] in (b"k", b"#"):
        _key(data.decode(errors="replace"))
    else:
        _message(data)


def _message(data: bytes) -> None:
    try:
        plain, signature = tsig.split(data)
    except wire.WireError as error:
        assert str(error).isprintable()
        return
    assert plain[:2] == data[:2], "another ID"
    if signature is None:
        assert plain == data
        return
    assert len(plain) < len(data)
    assert int.from_bytes(plain[10:12], "big") == int.from_bytes(data[10:12], "big") - 1
    # what is taken apart goes together: but for the letters' case and compressed names
    again = tsig.append(plain, signature, signature.mac)
    assert tsig.split(again) == (plain, signature)
    for key in KEYS:
        code = tsig.verify(plain, signature, key, NOW)
        assert code in (0, tsig.BADSIG, tsig.BADKEY, tsig.BADTIME)
        if code != tsig.BADKEY:
            assert signature.names(key)
            refused = tsig.refuse(plain, signature, key, code or tsig.BADTIME, NOW)
            assert tsig.split(refused)[1] is not None
        signer = tsig.Signer(key)
        signed = signer.sign(plain, NOW)
        assert len(signed) == len(plain) + signer.extra_bytes
        unsigned, own = tsig.split(signed)
        assert own is not None
        assert unsigned == plain
        assert tsig.verify(unsigned, own, key, NOW) == 0
        assert tsig.verify(unsigned[:3] + b"\xff" + unsigned[4:], own, key, NOW) in (0, tsig.BADSIG)


def _key(text: str) -> None:
    try:
        key = parse(text, "/etc/key")
    except BadKey as error:
        assert str(error).isprintable(), error
        return
    assert key.algorithm in ALGORITHMS
    assert key.secret
    assert wire.encode_name(key.name)
    assert tsig.Signer(key).sign(bytes(12), NOW)
