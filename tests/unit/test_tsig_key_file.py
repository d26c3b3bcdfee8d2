"""Files of TSIG keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifdefault.dns.tsig_key import BadKey, LoadedKey, parse
from ifdefault.frontend.client import tsig_key_file

WRITTEN = 'key "tsig-key" {\n\talgorithm hmac-sha256;\n\tsecret "c2VjcmV0";\n};\n'


@pytest.mark.parametrize(
    "text",
    [
        WRITTEN,
        'key tsig-key. { secret "c2VjcmV0"; algorithm "HMAC-SHA256."; };',
        "key TSIG-key{algorithm hmac-sha256;secret c2VjcmV0;}",
        f"# of the secondary\n// its key\n/* for\nexample */{WRITTEN}# end",
    ],
)
def test_a_key_is_read(text: str) -> None:
    assert parse(text, "/k") == LoadedKey("tsig-key", "hmac-sha256", b"secret")


def test_a_secret_with_slashes() -> None:
    assert parse("key k { algorithm hmac-sha1; secret /+//AAA=; };", "").secret[:1] == b"\xff"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "it isn't a key"),
        ("hello", "it isn't a key"),
        ('key "k', "it isn't a key"),
        ("key k { algorithm hmac-sha256; };", "it has no secret"),
        ("key k { secret c2VjcmV0; };", "it has no algorithm"),
        ("key k { algorithm md5; secret c2VjcmV0; };", "'md5' isn't one of hmac-sha1, "),
        ("key k { algorithm hmac-sha256; secret c2VjcmV; };", "the secret isn't base64"),
        ('key k { algorithm hmac-sha256; secret ""; };', "the secret is empty"),
        ("key k { algorithm hmac-sha256 secret c2VjcmV0; };", "a statement within the braces is"),
        ("key a..b { algorithm hmac-sha256; secret c2VjcmV0; };", "'a..b' is not a valid key name"),
        (WRITTEN + WRITTEN, "it contains more than one key"),
    ],
)
def test_what_is_wrong_is_told(text: str, what: str) -> None:
    with pytest.raises(BadKey) as error:
        parse(text, "/etc/ifdefault/k")
    assert str(error.value).startswith(f"/etc/ifdefault/k: {what}")
    assert "use the output of tsig-keygen" in str(error.value)
    assert "c2VjcmV" not in str(error.value).replace("secret", "")


@pytest.mark.parametrize("algorithm", ["hmac-md5", "HMAC-MD5.SIG-ALG.REG.INT."])
def test_md5_is_told_what_replaces_it(algorithm: str) -> None:
    with pytest.raises(BadKey) as error:
        parse(f"key k {{ algorithm {algorithm}; secret c2VjcmV0; }};", "/etc/ifdefault/k")
    assert str(error.value) == (
        "/etc/ifdefault/k: hmac-md5 isn't secure and isn't supported (RFC 8945, 6); make a key with"
        " tsig-keygen -a hmac-sha256 NAME, and use it on both sides"
    )


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "k"
    with pytest.raises(BadKey, match="no such file; use the output of tsig-keygen"):
        tsig_key_file.read(str(path))
    path.write_text(WRITTEN)
    assert tsig_key_file.read(str(path)).secret == b"secret"
    with pytest.raises(BadKey, match=r"is a directory; make daemon\.user its owner"):
        tsig_key_file.read(str(tmp_path))


def test_a_secret_is_not_shown() -> None:
    assert "secret" not in repr(parse(WRITTEN, ""))
