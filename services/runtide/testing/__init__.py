"""Things that tests of runtide, and of what is built on it, need. No service imports this."""
