"""What requests to servers have in common: how they fail."""

from __future__ import annotations


class NoReply(Exception):
    """A request failed; the text says who reports it, and why."""
