"""The SQLite index of a store, a cache of its records, and what is read from it in bulk."""
