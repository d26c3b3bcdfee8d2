"""Publishing names in the DNS: embedded server, dynamic updates, providers, programs."""
