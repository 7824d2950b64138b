"""What answers questions: link paths, queries over several stores, groups, tables, read-only SQL."""
