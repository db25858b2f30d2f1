"""The real ClickHouse engine in a process of its own, behind ClickHouse's HTTP interface.

It promises what a server of that version promises to HTTP clients, as far as `app` says; native TCP is not spoken.
"""
