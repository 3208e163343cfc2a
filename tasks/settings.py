"""Where things are. The only module that reads or writes environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROCESS = {
    # Threads that wait for each other spin a thousandth of OpenMP's patience, then sleep: with anything else on the
    # machine, spinning threads take the core that the last one needs, and training crawls (docs/log.md).
    "GOMP_SPINCOUNT": "1000",
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    # A tracking server that hangs costs a stage one time-out. What failed is sent again later, from the disk. If MLflow
    # repeated requests, a run that the server created in spite of the time-out would be created twice.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "60",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "nightschool",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Telemetry off, our logs to Prefect, threads polite, waits bounded. A value the user has set already stays."""


def prepare_libraries() -> None:
    """Set what the libraries read when they are imported, so that they neither call home nor hog the machine."""
    settings = Settings.load()
    for name, value in (PROCESS | {"PREFECT_HOME": str(settings.home / "prefect")}).items():
        os.environ.setdefault(name, value)


def prepare_process() -> None:
    """For a run in this process: the home exists, and Prefect's console lines are off, as ours are printed anyway."""
    Settings.load().home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def chosen_prefect_api() -> str:
    """The Prefect server that the user chose, or nothing."""
    return os.environ.get("PREFECT_API_URL", "")


def use_prefect_api(url: str) -> None:
    """Report to a running Prefect server instead of an embedded one, unless the user chose one."""
    os.environ.setdefault("PREFECT_API_URL", url)


def child_environment(**values: str) -> dict[str, str]:
    """This process's environment with some variables added, for a process we start."""
    return os.environ | values


@dataclass(frozen=True)
class Settings:
    """Absolute addresses of everything a night reads and writes."""

    home: Path
    tracking_uri: str

    @classmethod
    def load(cls) -> Settings:
        """NIGHTSCHOOL_HOME (default ./store) and MLFLOW_TRACKING_URI (default SQLite under the home)."""
        home = Path(os.environ.get("NIGHTSCHOOL_HOME") or "store").expanduser().absolute()
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
        if uri.startswith("sqlite:///"):
            uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
        return cls(home, uri)
