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
    assert [block.line for block in found] == [1, 7, 23]
    assert found[0] == Block(1, "toml", "/etc/a.toml", "a = 1\n", "")
    assert found[0].path == "etc/a.toml"
    assert list(steps(found[1].text)) == [
        ("curl --head \\\nhttp://192.0.2.1/", "200"),
        ("true", ""),
    ]
    assert [block.fault for block in found] == ["", "", "carrier isp-a"]


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


def test_each_section_is_followed_once() -> None:
    """By a reader of its own, or with the rest of its document."""
    whole = {line for path in documents.paths() for line in (TOP / path).read_text().splitlines()}
    texts = [documents.text(name).splitlines() for name in documents.READERS]
    assert {line for text in texts for line in text} <= whole
    found = [block for name in documents.READERS for block in blocks(documents.text(name))]
    every = [block for path in documents.paths() for block in blocks((TOP / path).read_text())]
    assert sorted(block.line for block in found) == sorted(block.line for block in every)
    assert len(found) > 80


@pytest.mark.parametrize("path", documents.paths(), ids=str)
def test_each_document_is_followed(path: Path) -> None:
    """From its first block to the last, if it has any."""
    assert bool(blocks((TOP / path).read_text())) == (str(path) in documents.READERS)
