"""The shapes of rows as polars knows them, apart from the checks: reading rows must not wait for pandera to load."""

from __future__ import annotations

import polars as pl

TURNS = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
"""A conversation."""
