"""The host as a whole: reading, planning and changing it in one transaction."""
