"""Configuration of model and training, with the checks of every value."""
