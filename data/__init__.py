"""From raw files to packed tokens: out of core, in parallel, every row accounted for. No torch, no Prefect."""
