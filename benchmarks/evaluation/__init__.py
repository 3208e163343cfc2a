"""The promotion gate, measured on scores of real models."""
