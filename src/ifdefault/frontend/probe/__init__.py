"""Probes by kind: ICMP, TCP, HTTP(S), DNS."""
