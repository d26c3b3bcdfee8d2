"""The blocks that readers follow: how they are read, and that none is left out unsaid."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.systemd import documents
from tests.systemd.blocks import Block, blocks, fits, steps

TOP = Path(__file__).parents[2]
TEXT = """\
```toml title="/etc/a.toml"
a = 1
```

- in a list

  ```console title="on a client"
  # curl --head \\
  > http://192.0.2.1/
  200
  # true
  ```

<!-- not run: needs a cloud -->
```console
# false
```

```
a picture
```

```toml
a = "sketch"
```

<!-- fault: carrier isp-a -->
```console
# true
```
"""


def test_blocks() -> None:
    found = blocks(TEXT)
    assert [block.line for block in found] == [1, 7, 15, 28]
    assert found[0] == Block(1, "toml", "/etc/a.toml", "a = 1\n", "", "")
    assert found[0].path == "etc/a.toml"
    assert list(steps(found[1].text)) == [
        ("curl --head \\\nhttp://192.0.2.1/", "200"),
        ("true", ""),
    ]
    assert [block.not_run for block in found] == ["", "", "needs a cloud", ""]
    assert [block.fault for block in found] == ["", "", "", "carrier isp-a"]


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("a  b", "a    b\n", True),
        ("a b", "ab\n", False),
        ("a", "a\nb\n", False),
        ("a\n…", "a\nb\nc\n", True),
        ("…\nc", "a\nb\nc\n", True),
        ("…\nc", "c\n", True),
        ("…\nb\n…", "a\nc\n", False),
        ("lost … of 5", "lost 3 of 5\n", True),
        ("up  4.4s  0.0 %  0.6 ms", "up  12s    0.1 %  10 ms\n", True),
        ("ttl 30", "ttl 31\n", False),
        ("a\n\nb", "a\n\nb  \n", True),
    ],
)
def test_fits(shown: str, printed: str, expected: bool) -> None:
    assert fits(shown, printed) is expected


def test_few_blocks_are_not_run() -> None:
    """Without a package index, images of containers and a LAN some can't be."""
    found = [block for path in documents.paths() for block in blocks((TOP / path).read_text())]
    assert sum(block.not_run != "" for block in found) <= 13
    assert len(found) > 80


@pytest.mark.parametrize("path", documents.paths(), ids=str)
def test_each_document_is_followed(path: Path) -> None:
    """On a host, or not at all, for a reason that it gives."""
    followed = [block for block in blocks((TOP / path).read_text()) if not block.not_run]
    assert bool(followed) == (str(path) in documents.READERS)
