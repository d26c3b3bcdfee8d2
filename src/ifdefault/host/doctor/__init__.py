"""What `ifdefault doctor` finds out by sending packets. Nothing is changed."""
