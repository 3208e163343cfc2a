"""Is a model good, better, equal to its export: scores, promotion, parity, dense twin."""
