"""A year of nights: the real flow on a tiny model, with data that grows and drifts, and known faults."""
