"""What passes between processes: the channel, its messages, the rights that are given up."""
