"""The whole daemon in simulated time: its controller, a fake kernel, a fake Internet, and faults.

    faults of lines and links ┐                      ┌─> kernel (facts, performed one by one)
    operators, other programs ─┼─> Daemon.tell ─> Controller ─> effects ─┼─> probes ─> lines
    kills, locks, refusals ───┘                      └─> names ─> answers, updates

Rules: one seed gives one trace. Nothing sleeps or reads a clock. `invariants` are checked after
every turn; `planted` are bugs that they must find. `python -m tests.simulation` runs it.
"""
