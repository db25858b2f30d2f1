"""The warehouse room: everything that knows ClickHouse. Schema, writer, ledger, verification and queries."""
