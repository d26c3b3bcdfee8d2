"""Clients: dynamic updates, queries, HTTP, and a provider's API."""
