"""Real parts of the system as processes, for tests."""
