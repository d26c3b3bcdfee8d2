"""The monitor: follows the engine's reports, keeps their history, notifies; without privileges."""
