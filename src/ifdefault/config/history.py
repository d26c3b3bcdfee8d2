"""The keys of [history].

Rules: as in `config.base`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from ifdefault.config.base import Keys, absolute, duration, reject, toml
from ifdefault.model.config import HistoryConfig

_HISTORY = HistoryConfig()
_DAY_S = 86400
_LONGEST_DAYS = 3660


def _keep(text: str) -> int:
    keep_s = duration(text, "400d")
    if keep_s and not _DAY_S <= keep_s <= _LONGEST_DAYS * _DAY_S:
        reject(f"{toml(text)} is out of range", f'use "1d" to "{_LONGEST_DAYS}d", or "0" for none')
    return keep_s


def _textfile(path: str) -> str:
    example = "/var/lib/prometheus/node-exporter/ifdefault.prom"
    if absolute(path, example) and not path.endswith(".prom"):
        what = f"{toml(path)} doesn't end in .prom, and node_exporter reads no other files"
        reject(what, f'write it like "{example}"')
    return path


class HistoryKeys(Keys):
    """What the monitor writes to files."""

    keep: Annotated[str, AfterValidator(_keep)] = Field(
        default=f"{_HISTORY.keep_s // _DAY_S}d",
        validate_default=True,
        description='how long the history is kept; "0": no history',
    )
    textfile: Annotated[str, AfterValidator(_textfile)] = Field(
        default=_HISTORY.textfile, description="a file of metrics for node_exporter"
    )


def history_config(keys: HistoryKeys) -> HistoryConfig:
    keep: Any = keys.keep  # validated: a number
    return HistoryConfig(keep, keys.textfile)
