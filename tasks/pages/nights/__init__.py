"""Pages about nights: one of a single night, one over all nights of a recipe."""
