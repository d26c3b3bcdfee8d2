"""Planning: from config and facts to the desired kernel state, and the operations that lead to it.

Rules: pure; no clock, file, socket, log or randomness. The stages, in order: `numbers` and
`resolve` (the uplinks), `desired` (routes, rules, sysctls) with `ruleset` and `forward_table`
(nftables), `diff` (operations); `prepare` joins them. `lookup` predicts where a packet goes, and
why.
"""
