"""The sink room: takes ranges from the bus and stores every record of them exactly once."""
