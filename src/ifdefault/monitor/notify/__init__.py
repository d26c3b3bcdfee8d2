"""Notifications: who is told of which events, when, and by what ([[notify]] of the config)."""
