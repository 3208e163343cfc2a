"""What is reported to MLflow, and the model registry."""
