"""What the unprivileged process runs: it probes, answers DNS and speaks to servers."""
