"""The targets, a module for each; see `tests/fuzz/__init__.py`."""
