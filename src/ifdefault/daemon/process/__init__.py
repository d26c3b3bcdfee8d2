"""The engine's child processes: the frontend, hooks and programs."""
