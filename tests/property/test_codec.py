"""Whatever JSON holds, it is a record that means itself, or it is refused with its place."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifdefault.ipc import codec
from ifdefault.ipc.codec import DecodeError
from ifdefault.ipc.control.protocol import Reply, Request

texts = st.text(max_size=8) | st.sampled_from(["auto", "up", "Infinity", "NaN", "isp-a"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", [*get_args(Request), *get_args(Reply)], ids=lambda k: k.__name__)
@given(data=st.data())
def test_a_record_of_any_values(kind: type, data: st.DataObject) -> None:
    names = list(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    told = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys([*names, "x"], values)))
    tagged: Any = {"type": kind.__name__, **told}
    record, fault = decoded(tagged)
    if fault:
        assert fault.path.startswith(kind.__name__)
        assert str(fault).isprintable()
        return
    assert type(record) is kind
    again = codec.read(codec.write(codec.encoder(Request | Reply)(record)))
    assert repr(decoded(again)[0]) == repr(record)  # repr: NaN is not itself


def decoded(value: Any) -> tuple[Any, DecodeError | None]:
    try:
        return codec.decoder(Request | Reply)(value), None
    except DecodeError as error:
        return None, error
