"""The agent room: one process per host and spool root that tails all streams, ships them and says how processes end.

Knows spool, wire and v1 only, and needs the base installation only. It is started by a training process with exec, in a
session of its own, so that it outlives the job. `main` starts it, `serve` is its life. `served` is what it serves:
`streams` is one of them, `rejects` what is refused of it; `shipper` is one destination, `gateway` the calls. `finding`
finds streams; `ends` and `watch` follow the processes behind them; `voice`, `own` and `sample` say what there is to say
of the host; `link` and `answers` are what jobs may ask. `parent` is `runtide run`, `sync` is `runtide sync`.
"""
