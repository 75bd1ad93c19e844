"""The paths, a noun per file; each has a `router`. They know no mathematics."""
