"""The integrations room: how training libraries log to runtide. Each uses the public sdk only, and its own library."""
