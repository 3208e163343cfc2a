"""How runs and registered versions leave the tracking store for good."""
