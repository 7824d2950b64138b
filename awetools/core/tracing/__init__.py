"""Lineage: what products were made from, what was made from them, why they differ, and how to make them again."""
