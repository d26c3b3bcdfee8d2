"""The only hands on the kernel: reads facts, performs operations, decides nothing."""
