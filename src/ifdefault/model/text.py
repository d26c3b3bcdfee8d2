"""Text that others named: as the kernel has it, and as a terminal or a log may show it.

Rules: names of interfaces, cgroups and processes are bytes; those that aren't UTF-8 become
surrogates (PEP 383), and bytes again. Control characters (C0, C1, DEL), formatting ones
(bidirectional, zero-width), line and paragraph separators, and surrogates are shown as escapes. All
others stay as they are.
"""

from __future__ import annotations


def escaped(text: str) -> str:
    """One line that a terminal shows, and doesn't obey."""
    if text.isprintable():  # neither "Other" nor "Separator" (Unicode), apart from the space
        return text
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":  # a byte that isn't UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def escaped_lines(text: str) -> str:
    """As `escaped`, but line breaks and tabs are kept."""
    return text if text.isprintable() else "".join(c if c in "\n\t" else _escaped(c) for c in text)


def from_bytes(name: bytes) -> str:
    """A name that the kernel has, up to its NUL."""
    return name.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def to_bytes(name: str) -> bytes:
    """The reverse of `from_bytes`, without a NUL."""
    return name.encode("utf-8", "surrogateescape")


def is_utf8(name: str) -> bool:
    """Whether it is one that a file in UTF-8, such as the config, can have."""
    return all(not "\udc80" <= character <= "\udcff" for character in name)
