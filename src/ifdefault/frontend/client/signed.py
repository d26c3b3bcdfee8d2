"""Requests that are signed (RFC 8945) if there is a key, and their responses.

Rules: the response to a signed request must be signed. A response with an error needn't be, since
the server may not have the key; it can only make the request fail. Failures are a `NoReply`.
"""

from __future__ import annotations

import time

from ifdefault.dns import client, tsig
from ifdefault.dns.tsig_key import BadKey
from ifdefault.frontend.client import tsig_key_file
from ifdefault.frontend.client.no_reply import NoReply

_FAULTS = {tsig.BADSIG: "BADSIG", tsig.BADKEY: "BADKEY", tsig.BADTIME: "BADTIME", 22: "BADTRUNC"}


class Request:
    """A request to the server at `address`. `message`: to be sent."""

    def __init__(self, plain: bytes, address: str, key_path: str) -> None:
        try:
            self._key = tsig_key_file.read(key_path) if key_path else None
        except BadKey as error:
            raise NoReply(f"this host: {error}") from None
        self.plain, self._address = plain, address
        self._signer = tsig.Signer(self._key) if self._key else None
        self.message = self._signer.sign(plain, time.time()) if self._signer else plain

    def refusal(self, code: int, response: bytes) -> NoReply:
        """The error of a response; WireError if it is malformed."""
        _, signature = tsig.split(response)
        fault = f" ({_fault_name(signature.error)})" if signature and signature.error else ""
        return NoReply(f"{self._address} refuses: {client.code_name(code)}{fault}")

    def verify(self, response: bytes) -> None:
        """Raises NoReply if the signature is invalid; WireError if the response is malformed."""
        plain, signature = tsig.split(response)
        if not (self._key and self._signer):
            return
        if signature is None:
            raise NoReply(f"{self._address}: the response isn't signed")
        if wrong := tsig.verify(plain, signature, self._key, time.time(), self._signer.mac):
            what = f"invalid signature of the response ({_fault_name(wrong)})"
            raise NoReply(f"{self._address}: {what}")


def _fault_name(code: int) -> str:
    return _FAULTS.get(code, f"TSIG error {code}")
