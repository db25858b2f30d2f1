"""The wire room: framing, limits, states and errors. Pure: no I/O, no clock, no dependency but protobuf."""
