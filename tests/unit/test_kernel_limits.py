"""What doesn't fit into a format of the kernel is an error of ours, and never cut off."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ifdefault.kernel import netlink, perform, rtnetlink
from ifdefault.kernel.ebpf import programs
from ifdefault.kernel.netlink import PAYLOAD_MAX
from ifdefault.model.errors import KernelError
from ifdefault.model.kernel import SLOTS, AddRule, Hook, Hop, PutRoute, Route, Rule


def test_an_attribute_has_sixteen_bits_of_length() -> None:
    assert len(netlink.attribute(1, bytes(PAYLOAD_MAX))) == 1 << 16
    with pytest.raises(OSError, match="a netlink attribute of 65532 bytes is too long"):
        netlink.attribute(1, bytes(PAYLOAD_MAX + 1))
    hops = tuple(Hop("wan0", f"192.0.2.{n & 255}") for n in range(5000))
    with pytest.raises(OSError, match="too long"):
        rtnetlink.encode_route(Route(4, 1001, "default", hops=hops), {"wan0": 2})


@pytest.mark.parametrize(
    "operation",
    [
        AddRule(Rule(4, 1 << 32, table=1001)),
        AddRule(Rule(4, 5030, table=1001, dport=(0, 65536))),
        AddRule(Rule(4, 5030, table=1001, protocol=256)),
        PutRoute(Route(4, 1001, "default", metric=1 << 32)),
        PutRoute(Route(4, 1001, "default", hops=(Hop("wan0", weight=257), Hop("wan0")))),
        PutRoute(Route(4, 1001, "192.0.2.0/256")),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    operation: AddRule | PutRoute, monkeypatch: pytest.MonkeyPatch
) -> None:
    performer = object.__new__(perform.Performer)
    performer._indexes = {"wan0": 2}
    monkeypatch.setattr(performer, "_netlink", SimpleNamespace(change=None), raising=False)
    with pytest.raises(KernelError, match=rf"^{type(operation).__name__}: doesn't fit "):
        performer.perform(operation)


def test_the_programs_on_connect_have_room_for_thousands_of_rules() -> None:
    def length(many: int) -> int:
        spared = (
            Rule(4, 32765, table=1001, dst=f"10.{n >> 8}.{n & 255}.0/24") for n in range(many)
        )
        marks = (0x21000000,) * SLOTS
        hook = Hook(0x3F000000, marks=((4, marks), (6, marks)), spared=tuple(spared))
        return len(programs.connect(hook, 4, 0, 0, 0))

    assert length(8000) > 8000
    with pytest.raises(KernelError, match=r"at most 32767; use fewer prefixes"):
        length(9000)
