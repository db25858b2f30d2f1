"""What tests of the sdk share."""

from tests.offline_job import job

__all__ = ["job"]
