"""The engine's end of the face: starts it, speaks to it, and starts it again when it dies.

Rules: the engine never waits for the face. What the face says is taken only as far as it is one
of the messages it may send; one that says anything else is ended, and a new one started. While
there is none nothing is asked, so that nothing is held against any uplink.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ifdefault.daemon.channel import Channel
from ifdefault.daemon.diary import Diary
from ifdefault.daemon.messages import (
    Message,
    Outcome,
    Ping,
    Pong,
    Resolve,
    Resolved,
)
from ifdefault.daemon.spawn import Face, start_face
from ifdefault.errors import HostError
from ifdefault.model import DaemonConfig

_RESOLVE_S = 300.0  # a name's addresses are asked for so often
_RESOLVE_AGAIN_S = 15.0  # while it has none
_PING_S = 1.0
_DEAF_S = 5.0  # a face that answers no ping for so long is ended
_RESTART_S, _RESTART_LONGEST_S = 0.1, 30.0

Hear = Callable[[int, int, Any, int], None]
