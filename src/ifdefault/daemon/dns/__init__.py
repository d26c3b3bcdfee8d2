"""What the DNS is to say, and who says it: embedded server, updates, programs."""
