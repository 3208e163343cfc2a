"""Mixtures of experts: router, dispatch, expert products, balance losses."""
