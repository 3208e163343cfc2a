"""Where a home and its databases are. The only module that reads or writes environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import NightStopped

PROCESS = {
    # OpenMP threads that wait for each other spin a thousandth of the default time, then sleep: if anything else runs
    # on the machine, spinning threads occupy the core that the last one needs, and training slows down (docs/log.md).
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
"""Telemetry off, our log lines to Prefect, short spinning, bounded waits. A value that the user has set stays."""


def prepare_libraries() -> None:
    """Set what libraries read from the environment when they are imported: PROCESS, and Prefect's home."""
    settings = Settings.load()
    for name, value in (PROCESS | {"PREFECT_HOME": str(settings.home / "prefect")}).items():
        os.environ.setdefault(name, value)


def prepare_process() -> None:
    """For a run in this process: make the home, and turn Prefect's console lines off, as ours are printed anyway.

    Raises NightStopped if the home cannot be made.
    """
    home = Settings.load().home
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NightStopped(
            f"the home {home} cannot be made ({error.strerror}); set NIGHTSCHOOL_HOME to a folder that can be made"
        ) from None
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def chosen_prefect_api() -> str:
    """Address of the Prefect server that the user chose, or an empty string."""
    return os.environ.get("PREFECT_API_URL", "")


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite address, or None if it is another database, a server, or in memory."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(path) if uri.startswith("sqlite:///") and path not in ("", ":memory:") else None


def prefect_database() -> Path | None:
    """Prefect's SQLite database, or None if the user chose another one."""
    names = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
    if any(os.environ.get(name) for name in names):
        return None
    return Path(os.environ["PREFECT_HOME"]).expanduser() / "prefect.db"


def use_prefect_api(url: str) -> None:
    """Report to a running Prefect server instead of an embedded one, unless the user chose one."""
    os.environ.setdefault("PREFECT_API_URL", url)


def child_environment(**values: str) -> dict[str, str]:
    """The environment of this process with some variables added, for a child process."""
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
