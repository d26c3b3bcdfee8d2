"""The health of uplinks, judged from what is seen of them, and which uplinks to use.

Rules: pure: `now` (monotonic seconds) is an argument, probes are asked for and never sent. `path`
is the state machine, `states` its table; `loss_model` knows what losses are normal, and
`failure_detector` what goes beyond them; `degradation` is of paths that work; `probe_schedule` says
who is asked when, `target` keeps what is known of each; `selection` chooses the uplinks;
`server_check` judges the servers behind the host.
"""

from ifdefault.health.path import Path
from ifdefault.health.selection import Candidate, decide
from ifdefault.health.states import TRANSITIONS, Memory

__all__ = ["TRANSITIONS", "Candidate", "Memory", "Path", "decide"]
