"""How an uplink fares, judged from what is seen of it, and which uplinks to use.

Rules: pure: `now` (monotonic seconds) is an argument, probes are asked for and never sent. `line`
knows what losses are normal, `target` one target, `path` the state machine, `states` its table,
`decision` the choice.
"""

from ifdefault.health.path import Path
from ifdefault.health.selection import Candidate, decide
from ifdefault.health.states import TRANSITIONS, Memory

__all__ = ["TRANSITIONS", "Candidate", "Memory", "Path", "decide"]
