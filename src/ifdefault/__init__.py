"""ifdefault: every connection is answered through the uplink it came in on."""

__version__ = "0.1.0"
