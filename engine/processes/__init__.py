"""What a process and others say to each other: the one that started it, and those that train a run with it."""
