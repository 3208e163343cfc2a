"""Exact and near duplicates: rows by name, by sketch, and which of a cluster stay."""
