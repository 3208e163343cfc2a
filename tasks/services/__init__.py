"""Prefect's server, a worker and MLflow as processes of ours."""
