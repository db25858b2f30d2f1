"""Reading what is stored, from Python: runs by filters in SQL, their series, comparisons, leaderboards, whole projects.

Over the public views, as a user that only reads. `runtide.Api` is the way in.
"""

from runtide.api.client import Api
from runtide.api.compare import Comparison
from runtide.api.result import Result
from runtide.api.run import Run, UnknownRun

__all__ = ["Api", "Comparison", "Result", "Run", "UnknownRun"]
