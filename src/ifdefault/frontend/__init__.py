"""Unprivileged processes: one sends probes and requests to servers, one answers DNS queries."""
