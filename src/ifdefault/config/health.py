"""The keys of [health].

Rules: as in `config.base`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, ValidationInfo

from ifdefault.config.base import Keys, number, reject
from ifdefault.config.probe_url import Probes
from ifdefault.model.config import HealthConfig

_HEALTH = HealthConfig()


def _not_below_recover(damp_s: float, info: ValidationInfo) -> float:
    recover_s = info.data.get("recover_s")
    if recover_s is not None and damp_s < recover_s:
        what = f"{damp_s:g} is less than recover_s, {recover_s:g}"
        reject(what, f"use {recover_s:g} or more: damp_s is the longest recovery time")
    return damp_s


class HealthKeys(Keys):
    """What is probed, and when an uplink is up, degraded or down."""

    probes: Probes = Field(
        default=cast(Any, _HEALTH.probes),
        description="probe targets beyond the gateway, for all uplinks",
        json_schema_extra={"default": [str(probe) for probe in _HEALTH.probes]},
    )
    rounds_per_s: float = number(
        _HEALTH.rounds_per_s, 0.1, 2, "usual number of probes per second, of each uplink and family"
    )
    false_alarm_days: float = number(
        _HEALTH.false_alarm_days,
        1,
        3650,
        "mean time between false alarms, of an uplink in one family",
    )
    recover_s: float = number(
        _HEALTH.recover_s, 0, 300, "how long probes must be answered before an uplink is up again"
    )
    damp_s: Annotated[float, AfterValidator(_not_below_recover)] = Field(
        default=_HEALTH.damp_s,
        strict=True,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        validate_default=True,
        description="longest recovery time of a flapping uplink",
    )
    degraded_loss: float = number(
        _HEALTH.degraded_loss,
        0,
        0.9,
        "share of lost probes above which an uplink is degraded; 0: never",
    )
    degraded_rtt_ms: float = number(
        _HEALTH.degraded_rtt_ms,
        0,
        10000,
        "round-trip time above which an uplink is degraded; 0: never",
    )
    on_down: Literal["end", "keep"] = Field(
        default=_HEALTH.on_down,
        description="end or keep outgoing connections over an uplink that goes down",
    )
