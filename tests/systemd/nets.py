from dataclasses import dataclass, field
from tests.systemd.booted import PACKAGING

@dataclass(frozen=True, slots=True)
class Net:
    units: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)

def networkd():
    return {f"etc/systemd/network/{d}.network": f"[Match]\nName={d}\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=yes\nLLMNR=no\n[DHCPv4]\nRouteMetric={m}\n" for d, m in (("wan0", 100), ("wan1", 200))}

def nm():
    f = {}
    for d, m in (("wan0", 100), ("wan1", 200)):
        f[f"etc/NetworkManager/system-connections/{d}.nmconnection"] = f"[connection]\nid={d}\ntype=ethernet\ninterface-name={d}\n[ipv4]\nmethod=auto\nroute-metric={m}\n[ipv6]\nmethod=auto\nroute-metric={m}\n"
    f["etc/NetworkManager/conf.d/lan.conf"] = "[keyfile]\nunmanaged-devices=interface-name:lan0\n"
    return f

def ifupdown():
    return {"etc/network/interfaces": "auto lo\niface lo inet loopback\n" + "".join(f"auto {d}\niface {d} inet dhcp\n  metric {m}\niface {d} inet6 auto\n" for d, m in (("wan0", 100), ("wan1", 200)))}

NETS = {
  "networkd": Net(("systemd-networkd.service", "networkd-dispatcher.service"), networkd()),
  "nm": Net(("NetworkManager.service", "NetworkManager-dispatcher.service"), nm()),
  "ifupdown": Net(("networking.service",), ifupdown()),
}
H = (PACKAGING / "hooks/ifdefault").read_text()
D = (PACKAGING / "hooks/dhclient").read_text()
HOOKS = {f"etc/network/{n}.d/ifdefault": H for n in ("if-up", "if-post-down")} | {f"usr/lib/networkd-dispatcher/{n}.d/ifdefault": H for n in ("routable","degraded","no-carrier","off")} | {"usr/lib/NetworkManager/dispatcher.d/ifdefault": H, "usr/lib/ifdefault/hook": H, "etc/dhcp/dhclient-exit-hooks.d/ifdefault": D, "usr/lib/dhcpcd/dhcpcd-hooks/90-ifdefault": D}
