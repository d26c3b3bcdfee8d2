"""ifdefault: multihoming for web hosts without BGP."""

__version__ = "0.3.0"
