"""What a shell sees: one file a tool; the only place that imports click."""
