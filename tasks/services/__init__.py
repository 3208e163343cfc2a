"""Prefect's server, a worker and MLflow as processes that this project starts and stops."""
