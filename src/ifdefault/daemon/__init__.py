"""The daemon: its privileged process, the engine, and what it runs."""
