"""Say what was taken over from other programs, what wasn't, and what to remove in which order.

Rules: pure. The same lines are printed, and written into the config as comments.
"""

from __future__ import annotations

from collections.abc import Iterator

from ifdefault.host.takeover import Reason, Takeover, shorten

_RELOAD = {
    "netplan": ("netplan generate",),
    "netplan for NetworkManager": ("netplan generate", "nmcli connection reload"),
    "NetworkManager": ("nmcli connection reload",),
}
# "networkctl reload" removes an interface's addresses for a moment, and with them our routes
_OF_NETWORKD = ("netplan", "systemd-networkd")
_RESTART = "systemctl restart systemd-networkd"
_SHOREWALL6 = "/etc/shorewall6/"


def lines(takeover: Takeover) -> Iterator[str]:
    """All of it; nothing if there is nothing to take over."""
    yield from _reasons("Not translated, since the config can't say it:", takeover.left)
    if takeover.statements or takeover.commands:
        yield f"To take over from {_names(takeover)} without losing a connection:"
        steps = list(_steps(takeover))
        for number, (step, *details) in enumerate(steps, 1):
            yield f"{number}. {step}"
            yield from (f"     {detail}" for detail in details)
    yield from _reasons(
        "In no file that was searched; look for what lays them:",
        [(u, "") for u in takeover.unknown],
    )
    yield from _reasons("Seen besides:", takeover.notes)


def _names(takeover: Takeover) -> str:
    return " and ".join(takeover.programs) or "these rules"


def _reasons(title: str, reasons: tuple[Reason, ...] | list[Reason]) -> Iterator[str]:
    if reasons:
        yield title
    for what, why in reasons:
        yield f"  {what}"
        if why:
            yield f"    {why}"


def _steps(takeover: Takeover) -> Iterator[tuple[str, ...]]:
    yield from ((remedy,) for remedy in takeover.first)
    yield ("ifdefault apply --confirm 60, then ifdefault confirm; ours precede the others",)
    if takeover.statements:
        found = (f"{s.where}: {shorten(s.text)}" for s in takeover.statements)
        yield ("remove from these files:", *found)
        if reloads := list(_reloads(takeover)):
            yield ("let the change take effect:", *dict.fromkeys(reloads))
    if takeover.commands:
        yield ("undo in the kernel what is still there:", *takeover.commands)
    yield ("ifdefault apply, then ifdefault check",)
    yield ("systemctl enable --now ifdefault",)
    if any(program in _OF_NETWORKD for program in takeover.programs):
        yield ("later, so that it forgets its rules without a reboot:", _RESTART)


def _reloads(takeover: Takeover) -> Iterator[str]:
    for program in takeover.programs:
        if program == "Shorewall":
            paths = [s.path for s in takeover.statements if s.program == program]
            sixes = [path.startswith(_SHOREWALL6) for path in paths]
            yield from () if all(sixes) else ("shorewall reload",)
            yield from ("shorewall6 reload",) if any(sixes) else ()
        else:
            yield from _RELOAD.get(program, ())
    yield from (f"nmcli device reapply {device}" for device in takeover.devices)
