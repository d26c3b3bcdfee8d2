"""Clients: DNS queries, dynamic updates, HTTP, and providers' APIs."""
