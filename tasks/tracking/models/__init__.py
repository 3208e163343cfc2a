"""A registered version as MLflow and other engines load it."""
