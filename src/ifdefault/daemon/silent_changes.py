"""Polls what the kernel sends no notification of: sysctls that we set, UDP servers on the wildcard
address, control groups that have rules, MPTCP's endpoints and limits.

Rules: it compares with the controller's last Watch, and reports that something differs; what to do
about it is the controller's decision.
"""

from __future__ import annotations

from ifdefault.daemon.controller.effects import Watch
from ifdefault.daemon.controller.events import SilentlyChanged
from ifdefault.kernel import sockdiag, sysctl
from ifdefault.kernel.ebpf import cgroups
from ifdefault.kernel.mptcp import Mptcp
from ifdefault.kernel.netlink import Netlink
from ifdefault.kernel.uapi.netlink import NETLINK_SOCK_DIAG
from ifdefault.model.errors import HostError
from ifdefault.model.mptcp import MptcpState


class SilentChanges:
    def __init__(self) -> None:
        self._watch = Watch()
        self._sysctls = sysctl.Watched(())
        self._netlink: Netlink | None = None
        self._udp_due = False
        self._mptcp: Mptcp | None = None

    def update(self, watch: Watch) -> None:
        if watch.sysctls != self._watch.sysctls:
            self._reopen(watch)
        self._watch = watch

    def look(self) -> list[SilentlyChanged]:
        """Events for what differs now."""
        changes = []
        if self._groups_differ():
            changes.append(SilentlyChanged(groups=True))
        if self._sysctls_differ() or self._udp_servers_differ() or self._mptcp_differs():
            changes.append(SilentlyChanged())
        return changes

    def _groups_differ(self) -> bool:
        """Also removes those of our own groups that are empty."""
        try:
            for path in self._watch.runs:
                cgroups.remove_empty(path)
            return any(cgroups.number(path) != id_ for path, id_ in self._watch.groups)
        except HostError:
            return False

    def _sysctls_differ(self) -> bool:
        if not self._sysctls.differ():
            return False
        self._reopen(self._watch)  # the file of a recreated interface is another one
        return any(sysctl.read(n) not in (value, None) for n, value in self._watch.sysctls)

    def _reopen(self, watch: Watch) -> None:
        self._sysctls.close()
        self._sysctls = sysctl.Watched(watch.sysctls)

    def _udp_servers_differ(self) -> bool:
        known = self._watch.udp_servers
        self._udp_due = not self._udp_due  # every other time is often enough
        if known is None or not self._udp_due:
            return False
        try:
            if self._netlink is None:
                self._netlink = Netlink(NETLINK_SOCK_DIAG)
            return sockdiag.wildcard_udp(self._netlink) != known
        except OSError:  # out of memory or files: try again soon
            if self._netlink is not None:
                self._netlink.close()
                self._netlink = None
            return False

    def _mptcp_differs(self) -> bool:
        known = self._watch.mptcp
        if known is None:
            return False
        try:
            if self._mptcp is None:
                self._mptcp = Mptcp()
            now: MptcpState = self._mptcp.read()
        except OSError:  # out of memory or files: try again soon
            if self._mptcp is not None:
                self._mptcp.close()
                self._mptcp = None
            return False
        return now.lasting != known
