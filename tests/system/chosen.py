"""Which tests run on the kernels of guests, and for which of their features.

Rules: of tests/net each kind of behaviour once, by a test that is quick where the processor is
emulated: one that starts the daemon takes half a minute there. The oldest kernel runs these, and
another one all of tests/system, which shows failover; `./dev test` runs the rest on a third. What
kernels have been seen to take differently runs on both. Both take about as long.
"""

from __future__ import annotations

CHOSEN = {
    "routes, rules, groups and sysctls are written and read": [
        "tests/net/test_rtnetlink.py",
        "tests/net/test_apply.py::test_apply_does_what_plan_showed_and_only_once",
        "tests/net/test_down.py::test_down_leaves_everything_as_it_was[two-announcing-id 251]",
    ],
    "changes are heard": [
        "tests/net/test_watch_netlink.py::test_links",
        "tests/net/test_watch_netlink.py::test_carrier",
        "tests/net/test_watch_netlink.py::test_addresses",
        "tests/net/test_watch_netlink.py::test_routes_rules_and_nexthops",
        "tests/net/test_watch_netlink.py::test_ipv6_routes_and_rules",
        "tests/net/test_watch_netlink.py::test_rulesets",
        "tests/net/test_watch_netlink.py::test_neighbours",
        "tests/net/test_watch_netlink.py::test_what_we_change_ourselves_is_no_news",
    ],
    "rulesets: every construct of nftables that we use": [
        "tests/net/test_golden_rulesets.py",
    ],
    "the return path of all protocols, and each way to find it": [
        "tests/net/test_return_path.py::test_every_kind_of_traffic_is_answered_on_every_address[two]",
        "tests/net/test_mechanisms.py::test_any_mechanism_can_be_ordered[conntrack]",
        "tests/net/test_naive_udp.py::test_a_client_in_the_other_uplinks_prefix",
    ],
    "packets from a wrong address are found": [
        "tests/net/test_source_check.py::test_what_is_forced_out_of_the_wrong_uplink[drop-7-0-4]",
        "tests/net/test_source_check.py::test_what_is_forced_out_of_the_wrong_uplink[count-7-7-6]",
    ],
    "forwarded connections: NAT and marks of connections": [
        "tests/net/test_forward.py::test_all_kinds_of_traffic_on_every_address",
        "tests/net/test_connmark.py::test_published_containers_answer_where_they_were_asked[docker]",
    ],
    "outgoing connections: eBPF programs of a control group, rules": [
        "tests/net/test_balance.py::test_connections_are_shared_by_weight",
        "tests/net/test_balance.py::test_it_outlives_the_daemon",
        "tests/net/test_outgoing.py::test_by_destination",
        "tests/net/test_exec.py::test_a_command_keeps_to_an_uplink[False]",
        "tests/net/test_explain.py::test_our_lookup_agrees_with_the_kernels[two]",
    ],
    "sockets and connections: listed, measured, ended": [
        "tests/net/test_kill_connections.py::test_outgoing_sockets_by_their_address",
        "tests/net/test_kill_connections.py::test_outgoing_sockets_by_their_mark",
        "tests/net/test_kill_connections.py::test_inbound_connections_stay[0.0.0.0]",
        "tests/net/test_kill_connections.py::test_connected_udp_sockets[IPv6]",
        "tests/net/test_kill_connections.py::test_flows_that_are_answered_to_a_dead_address[others1]",
        "tests/net/test_kill_connections.py::test_flows_by_their_mark",
        "tests/net/test_many.py::test_a_host_with_thousands_of_addresses_and_lan_routes",
        "tests/net/test_tcp_stats.py::test_progress",
        "tests/net/test_tcp_stats.py::test_stalled",
        "tests/net/test_tcp_stats.py::test_counters",
    ],
    "MPTCP: endpoints come and go, and connections stay": [
        "tests/net/test_mptcp.py",
    ],
    "the daemon: probes without rights": [
        "tests/net/test_privileges.py::test_the_face_has_no_right_left",
        "tests/net/test_sandbox.py::test_what_a_confined_process_can_do[FRONTEND-here]",
        "tests/net/test_open_probe_sockets.py::test_it_leaves_by_its_uplink[two-icmp]",
        "tests/net/test_open_probe_sockets.py::test_it_serves_a_process_without_rights[two]",
    ],
}

# How nf_tables converts the keys of maps, the verifier judges programs and Landlock confines.
ON_BOTH = [
    "tests/net/test_golden_rulesets.py",
    "tests/net/test_balance.py::test_connections_are_shared_by_weight",
    "tests/net/test_sandbox.py::test_what_a_confined_process_can_do[FRONTEND-here]",
    "tests/system/test_absent_modules.py",
]


def arguments(release: str) -> list[str]:
    """What to hand to pytest: our own first, as their worlds are found nowhere else."""
    if release == "bookworm":
        tests = [*(node for nodes in CHOSEN.values() for node in nodes), *ON_BOTH]
    else:
        tests = ["tests/system", *(node for node in ON_BOTH if node.startswith("tests/net"))]
    return sorted(dict.fromkeys(tests), key=lambda node: not node.startswith("tests/system"))
