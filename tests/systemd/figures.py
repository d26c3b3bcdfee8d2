"""What the tests of the package measure, for `./dev bench package`.

Rules: written only if somebody asks for it, a line for each figure.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

FILE = "IFDEFAULT_TEST_FIGURES"


def record(
    release: str, what: str, value: float, unit: str = "", target: float | None = None
) -> None:
    if FILE in os.environ:
        row = {"release": release, "what": what, "value": value, "unit": unit, "target": target}
        with Path(os.environ[FILE]).open("a") as file:
            file.write(json.dumps(row) + "\n")
