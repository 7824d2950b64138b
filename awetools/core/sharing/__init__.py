"""Contexts: named stores on the search path, and products handed from one to the next with their lineage."""
