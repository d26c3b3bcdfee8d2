"""The unprivileged process: it sends probes, answers DNS queries, and sends requests to servers."""
