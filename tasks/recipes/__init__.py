"""Recipes: their values, checks, names and overrides."""
