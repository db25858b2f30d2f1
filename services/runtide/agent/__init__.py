"""The agent room: one process per host and spool root that tails all streams, ships them and says how processes end.

Knows spool, wire and v1 only, and needs the base installation only. It is started by a training process with exec, in a
session of its own, so that it outlives the job. `serve` finds and watches streams, `streams` is one of them, `shipper`
one destination, `gateway` the calls, `own` and `sample` what the agent itself says, `link` the socket for jobs, `main`
the life, `parent` is `runtide run`, `sync` is `runtide sync`.
"""
