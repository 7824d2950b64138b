"""Arrays in, arrays and numbers out; no files, no headers, no settings."""
