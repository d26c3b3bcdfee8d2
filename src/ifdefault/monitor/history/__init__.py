"""The history: what became of the uplinks, in an SQLite file that all users may read."""
