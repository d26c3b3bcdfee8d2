"""The uplinks of the configs that tests of other tables begin with."""

from __future__ import annotations

UPLINKS = """\
[uplink.isp-a]
interface = "wan0"
addresses = ["203.0.113.10", "2001:db8:a::10"]
[uplink.isp-b]
interface = "wan1"
public = ["198.51.100.77"]
"""
