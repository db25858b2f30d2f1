"""The sdk room: what runs inside a training job. Appends to the local spool and does nothing else.

Promises: no gRPC and no network here, no exception into the job, no lock that another process can hold. The agent
ships what is appended; `agent_link` is the only place that talks to it.
"""
