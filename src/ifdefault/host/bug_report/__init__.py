"""What `ifdefault report` collects for a bug report, without secrets, in one archive."""
