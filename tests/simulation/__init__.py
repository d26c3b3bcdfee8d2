"""The whole daemon in simulated time: its controller, a fake kernel, a fake Internet, and all that
may befall them.

    lives of lines and links ─┐                      ┌─> kernel (facts, performed one by one)
    operators, other programs ─┼─> Daemon.tell ─> Controller ─> effects ─┼─> probes ─> lines
    kills, locks, refusals ───┘                      └─> names ─> answers, updates

Rules: one seed, one trace. Nothing sleeps, nothing reads a clock. `invariants` says what must hold,
`planted` what it must find; `python -m tests.simulation` runs it.
"""
