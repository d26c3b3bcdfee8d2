"""Which documents are followed, and on what host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Host:
    """What the reader of a document has before he begins."""

    releases: tuple[str, ...] = ("bookworm",)
    installed: bool = True  # ifdefault, by its package


HOSTS = {
    "README.md": Host(("trixie",), installed=False),
    "docs/tutorial.md": Host(("bookworm", "trixie"), installed=False),
}


def paths() -> list[Path]:
    """All documents that tell a reader to do something."""
    found = [TOP / "README.md", TOP / "packaging/README.md", *(TOP / "docs").rglob("*.md")]
    return sorted(path.relative_to(TOP) for path in found if "decisions" not in path.parts)
