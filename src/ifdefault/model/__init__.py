"""Frozen, comparable values that all packages share."""
