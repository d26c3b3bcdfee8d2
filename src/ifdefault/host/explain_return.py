"""Whether an outgoing connection returns to a better uplink, when one is usable again.

Rules: computed from the config and the kernel's present rules, as `kernel.end_returning` asks them.
"""

from __future__ import annotations

from dataclasses import replace

from ifdefault.host.explain_forward import matching_rule
from ifdefault.model.flow import Flow
from ifdefault.model.report_text import age
from ifdefault.plan.lookup import Fib
from ifdefault.plan.prepare import Prepared


def way_back(prepared: Prepared, flow: Flow, name: str) -> str:
    """What becomes of the connection on the uplink `name`; "" if it stays."""
    settings = {uplink.name: uplink for uplink in prepared.config.uplinks}
    if name not in settings or settings[name].on_return == "stay":
        return ""
    own = settings[name].metered, settings[name].rank
    better = [u for u in settings.values() if (u.metered, u.rank) < own]
    local = {a.address for a in prepared.facts.addresses}
    anew = replace(flow, src="" if flow.src in local else flow.src, mark=0)
    route = Fib.of(prepared.facts).lookup(anew).route
    tables = {uplink.table for uplink in prepared.uplinks}
    if not better or matching_rule(prepared, anew) or route is None or route.table not in tables:
        return ""
    names = " or ".join(uplink.name for uplink in better)
    return f"it ends {age(settings[name].grace_s)} after {names} is usable again"
