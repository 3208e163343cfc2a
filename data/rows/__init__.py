"""A piece of raw jsonl as a part: rows, names, sketches, statistics, quarantine."""
