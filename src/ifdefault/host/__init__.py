"""The host as a whole: read it, plan, and change it in one transaction."""
