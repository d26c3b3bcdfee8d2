"""Generic netlink (linux/genetlink.h): requests to a family of the kernel that has a name.

Rules: as `kernel.netlink`. A family's number isn't fixed: the kernel is asked for it by name.
"""

from __future__ import annotations

import struct

from ifdefault.kernel.decoding import decodes
from ifdefault.kernel.netlink import Netlink, attribute, attributes
from ifdefault.kernel.uapi import mptcp as uapi
from ifdefault.kernel.uapi.netlink import NETLINK_GENERIC

_HEAD = struct.Struct("=BBxx")  # struct genlmsghdr
_CTRL_VERSION = 2


class GenericNetlink:
    """FileNotFoundError if the kernel doesn't have the family."""

    def __init__(self, family: str, version: int) -> None:
        self._version = version
        self._netlink = Netlink(NETLINK_GENERIC)
        try:
            name = attribute(uapi.CTRL_ATTR_FAMILY_NAME, family.encode() + b"\0")
            body = _HEAD.pack(uapi.CTRL_CMD_GETFAMILY, _CTRL_VERSION) + name
            self._family = _family(self._netlink.ask(uapi.GENL_ID_CTRL, body))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> GenericNetlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._netlink.close()

    def change(self, command: int, body: bytes) -> None:
        self._netlink.change(self._family, self._message(command, body))

    def ask(self, command: int) -> dict[int, bytes]:
        """The attributes of the one reply."""
        return attributes(self._netlink.ask(self._family, self._message(command)), _HEAD.size)

    def dump(self, command: int) -> list[dict[int, bytes]]:
        """The attributes of each object."""
        messages = self._netlink.dump(self._family, self._message(command))
        return [attributes(message, _HEAD.size) for message in messages]

    def _message(self, command: int, body: bytes = b"") -> bytes:
        return _HEAD.pack(command, self._version) + body


@decodes
def _family(message: bytes) -> int:
    value = attributes(message, _HEAD.size)[uapi.CTRL_ATTR_FAMILY_ID]
    return int(struct.unpack_from("=H", value)[0])
