"""How nights of a recipe follow one another: their notes and names, what each begins with, where a model comes from."""
