"""What the tables of the config file share: how a key is refused, and how its value is shown.

Rules: a refusal names what is wrong and what would be right; `config.parse` adds where.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Keys(BaseModel):
    """A table of the config; what it doesn't know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def reject(what: str, remedy: str) -> NoReturn:
    raise PydanticCustomError("ifdefault", "{what}", {"what": what, "remedy": remedy})


def toml(value: Any) -> str:
    """A value as its writer wrote it, more or less."""
    return json.dumps(value, ensure_ascii=False, default=str)
