"""Pure: from config and facts to what should be in the kernel, and how to get there.

Rules: no clock, file, socket, log or randomness. The stages, in order: `numbers` and `resolve`
(which uplinks are there), `desired` (routes, rules, sysctls) with `ruleset` and `forward_table`
(nft), `diff` (operations); `prepare` joins them. `lookup` answers where a packet would go, and why.
"""
