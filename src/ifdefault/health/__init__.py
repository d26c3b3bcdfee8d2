"""The health of uplinks and servers, and the selection of uplinks.

Rules: pure; `now` (monotonic seconds) is an argument, and probes are requested, never sent. `path`
is the state machine, `states` its table; `loss_model` learns the usual loss of a path, and
`failure_detector` detects more than that; `degradation` measures paths that work; `flap_damping`
delays the return of those that fail often; `contradiction` is that of connections that progress
while probes are silent; `probe_schedule` decides which target is probed when, `target` is the
record of a target; `selection` orders the uplinks; `server_check` detects failures of servers
behind the host.
"""

from ifdefault.health.path import Path
from ifdefault.health.selection import Candidate, decide
from ifdefault.health.states import TRANSITIONS, Memory

__all__ = ["TRANSITIONS", "Candidate", "Memory", "Path", "decide"]
