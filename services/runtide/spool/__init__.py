"""The spool room: a stream's folder on the local disk. The job and the agent both write streams, only the agent ships.

    <root>/<host key>/<stream>/
        stream.json              who speaks and where to (0600: it may hold a token); written once, before any segment
        00000000000000000000.seg segments, named by the offset of their first byte, at most SEGMENT_BYTES
        position.json            the agent's: acknowledged and stored offsets, last error; replaced atomically
        rejected/<offset>.bin    bytes that the gateway refused for good

A segment is deleted when all of it is acknowledged, the folder when its stream has ended and everything is.
"""
