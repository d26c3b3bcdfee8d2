"""Records to JSON and back: what each hint allows, and how a fault is told."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from ifdefault.ipc import codec
from ifdefault.ipc.codec import DecodeError, Most, decoder, encoder, from_json, to_json
from ifdefault.ipc.fields import number


@dataclass(frozen=True, slots=True)
class Target:
    probe: str
    rtt_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Path:
    uplink: str
    family: Literal[4, 6]
    targets: tuple[Target, ...] = ()
    pair: tuple[str, int] | None = None
    rates: dict[str, tuple[float, float]] = field(default_factory=dict)
    key: bytes = b""
    wake_s: float = math.inf
    is_up: bool = False
    best: Target | None = None
    port: Annotated[int, number(1, 9)] = 1
    few: Annotated[tuple[int, ...], Most(2)] = ()
    whole: Decided = ()


@dataclass(frozen=True, slots=True)
class Moved:
    uplink: str


@dataclass(frozen=True, slots=True)
class Stopped:
    pass


Decided = tuple[Moved | Stopped | None, ...]
FULL = Path(
    "isp-a", 6, (Target("a", 1.5), Target("b")), ("x", 1), {"a": (1.0, -math.inf)}, b"\x00\xff",
    3.25, True, Target("c", 2.0), 9, (1, 2), (Moved("isp-b"), None, Stopped()),
)  # fmt: skip
BARE = Path("isp-a", 4)


def through_json(value: Any) -> Any:
    return codec.read(codec.write(value))


@pytest.mark.parametrize("path", [FULL, BARE])
def test_there_and_back(path: Path) -> None:
    assert from_json(Path, through_json(to_json(path))) == path
    assert from_json(Path, to_json(path)) == path
    assert decoder(Path, strict=True)(through_json(to_json(path))) == path


def test_what_is_written() -> None:
    told = through_json(to_json(FULL))
    assert told["key"] == "00ff"
    assert told["rates"] == {"a": [1.0, "-Infinity"]}
    assert told["whole"] == [{"type": "Moved", "uplink": "isp-b"}, None, {"type": "Stopped"}]
    assert told["best"] == {"probe": "c", "rtt_ms": 2.0}  # alone it needs no name
    assert to_json(BARE)["wake_s"] == "Infinity"
    assert math.isnan(from_json(Target, through_json(to_json(Target("a", math.nan)))).rtt_ms)


def test_a_whole_number_is_a_float_and_no_float_is_a_whole_number() -> None:
    found = from_json(Target, {"probe": "a", "rtt_ms": 2})
    assert (found.rtt_ms, type(found.rtt_ms)) == (2.0, float)
    with pytest.raises(DecodeError, match="few"):
        from_json(Path, {"uplink": "a", "family": 4, "few": [1.0]})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"targets": [{"probe": "a"}, {"probe": "b", "rtt_ms": "x"}]},
         "targets[1].rtt_ms: not a number"),
        ({"targets": [{}]}, "targets[0].probe: missing"),
        ({"targets": [{"probe": "a", "mood": 1}]}, "targets[0]: no field 'mood'"),
        ({"targets": {}}, "targets: not a list"),
        ({"targets": [[]]}, "targets[0]: not an object"),
        ({"rates": {"a": [1, True]}}, "rates['a'][1]: not a number"),
        ({"rates": {"a\n": [1]}}, r"rates['a\n']: not a list of 2"),
        ({"rates": {"a": [10**400, 1]}}, "rates['a'][0]: not a number"),
        ({"rates": []}, "rates: not an object"),
        ({"pair": ["x"]}, "pair: not a list of 2"),
        ({"pair": ["x", None]}, "pair[1]: not a whole number"),
        ({"best": {"probe": 1}}, "best.probe: not a text"),
        ({"family": 5}, "family: not one of 4, 6"),
        ({"family": True}, "family: not one of 4, 6"),
        ({"family": [4]}, "family: not one of 4, 6"),
        ({"is_up": 1}, "is_up: neither true nor false"),
        ({"key": "0"}, "key: not bytes in lower-case hexadecimal"),
        ({"key": "FF"}, "key: not bytes in lower-case hexadecimal"),
        ({"key": "00 ff"}, "key: not bytes in lower-case hexadecimal"),
        ({"port": 10}, "port: not a number from 1 to 9"),
        ({"few": [1, 2, 3]}, "few: more than 2"),
        ({"few": [1, "2"]}, "few[1]: not a whole number"),
        ({"few": 1}, "few: not a list"),
        ({"whole": [{"type": "Moved", "uplink": 1}]}, "whole[0].Moved.uplink: not a text"),
        ({"whole": [{"uplink": "a"}]}, "whole[0]: of unknown type"),
        ({"whole": [{"type": ["Moved"]}]}, "whole[0]: of unknown type"),
        ({"whole": [1]}, "whole[0]: not an object"),
        ({"uplink": None}, "uplink: not a text"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place(change: dict[str, Any], told: str) -> None:
    with pytest.raises(DecodeError) as caught:
        from_json(Path, through_json(to_json(BARE)) | change)
    assert str(caught.value) == told


def test_missing_fields_take_their_defaults_unless_strict() -> None:
    assert from_json(Path, {"uplink": "isp-a", "family": 4}) == BARE
    with pytest.raises(DecodeError, match=r"^not exactly the fields probe, rtt_ms$"):
        decoder(Target, strict=True)({"probe": "a"})
    with pytest.raises(DecodeError, match=r"^targets\[0\]: not exactly the fields probe, rtt_ms$"):
        decoder(Path, strict=True)(to_json(BARE) | {"targets": [{"probe": "a"}]})


def test_a_value_is_left_as_it_was() -> None:
    value = through_json(to_json(FULL))
    before = json.dumps(value)
    from_json(Path, value)
    assert json.dumps(value) == before


@dataclass(frozen=True)
class Setting:
    ports: Literal["auto", "off"] | tuple[int, ...] = "auto"


def test_a_word_or_a_list() -> None:
    for ports in ("auto", "off", (), (53, 443)):
        setting = Setting(ports)
        assert from_json(Setting, through_json(to_json(setting))) == setting
    for value, told in (("on", 'not one of "auto", "off"'), ([53, "x"], "not a whole number")):
        with pytest.raises(DecodeError, match=told):
            from_json(Setting, {"ports": value})


def test_each_is_made_once() -> None:
    assert decoder(Path) is decoder(Path)
    assert encoder(Path) is encoder(Path)


@pytest.mark.parametrize("hint", [set[int], int | str, Literal[1] | str, dict[int, str], object])
def test_what_has_no_form_in_json_is_refused_when_it_is_made(hint: Any) -> None:
    with pytest.raises(TypeError):
        decoder(hint)


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b'{"a":1,"a":2}', b"\xff", b"[" * 100_000])
def test_what_is_no_json(text: bytes) -> None:
    with pytest.raises(DecodeError, match=r"^not JSON$"):
        codec.read(text)
