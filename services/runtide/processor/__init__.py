"""The processor room: derived rows, made from raw rows by SQL. Everything here can be thrown away and made again."""
