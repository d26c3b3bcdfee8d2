"""Everything that the engine decides, as one machine without I/O: events in, effects out.

    events ──> receive(events, now) ──> effects        (`events`, `effects`, `controller`)

Rules: values only. No clock, socket, file, log or randomness is reached from here, nothing is
handed a callable, and nothing iterates over a set: the same events at the same times give the
same effects, so that a recorded run can be replayed and the whole daemon be simulated.
"""
