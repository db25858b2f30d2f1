"""Streaming experiment tracking. What a training job uses is here; see `runtide.init`."""
