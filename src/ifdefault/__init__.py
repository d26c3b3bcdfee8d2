"""ifdefault: multihoming for web hosts without BGP."""

__version__ = "0.2.0"
