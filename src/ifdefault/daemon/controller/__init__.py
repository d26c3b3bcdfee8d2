"""The daemon's decisions, without I/O: events in, effects out.

    events ──> receive(events, now) ──> effects        (`events`, `effects`, `controller`)

Rules: no clock, socket, file, log or randomness; no callable is passed in; nothing iterates over a
set. The same events at the same times therefore give the same effects, so that a recorded run can
be replayed and the whole daemon can be simulated.
"""
