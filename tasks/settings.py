"""Where a home and its databases are. The only module that reads or writes environment variables."""

from __future__ import annotations

import getpass
import importlib.util
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import NightStopped

PROJECT = Path(__file__).resolve().parent.parent
DEFAULT_HOME = "store"
NO_PROXY, LOOPBACK = ("no_proxy", "NO_PROXY"), ("127.0.0.1", "localhost", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
log = logging.getLogger("nightschool")
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
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    # A tracking server that hangs costs a stage one time-out. What failed is sent again later, from the disk. If MLflow
    # repeated requests, a run that the server created in spite of the time-out would be created twice.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "60",
    # Flow runs are kept for ever by default. Servers of a database that is no file of ours clean it by this alone.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(90 * 86_400),
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "nightschool",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Telemetry off, our log lines to Prefect, short spinning, bounded waits. A value that the user has set stays."""


def prepare_libraries() -> None:
    """Set what libraries read from the environment when they are imported: PROCESS, Prefect's home, who may be asked
    without a proxy, and a home folder and a name for a user who has none.

    Never fails: a home that cannot be is a message of the command that needs it.
    """
    home = home_or_default()
    for name, value in (PROCESS | {"PREFECT_HOME": str(home / "prefect")} | missing_user(home)).items():
        os.environ.setdefault(name, value)
    reach_loopback_directly()
    leave_out_socks()


def home_or_default() -> Path:
    """The home, or the default where the one that is set cannot be."""
    try:
        return Settings.load().home
    except NightStopped:
        return PROJECT / DEFAULT_HOME


def missing_user(home: Path) -> dict[str, str]:
    """What stands in for a user whom the machine does not know, as in a container with a number for a user.

    Libraries look for a home folder and a user name to put caches and tags under, and some end where there is none.
    """
    values = {}
    try:
        Path.home()
    except RuntimeError:
        values["HOME"] = str(home)
    try:
        getpass.getuser()
    except (KeyError, OSError):
        values["USER"] = f"uid-{os.getuid()}"
    return values


def reach_loopback_directly() -> None:
    """Have no library ask a proxy for this machine, here and in children: the servers of a night are on loopback.

    Libraries differ in which spelling of the variable they read, so both get what either had.
    """
    given = [host.strip() for name in NO_PROXY for host in os.environ.get(name, "").split(",")]
    hosts = list(dict.fromkeys(host for host in (*given, *LOOPBACK) if host))
    value = "*" if "*" in hosts else ",".join(hosts)  # libraries know the star by itself alone
    for name in NO_PROXY:
        os.environ[name] = value


def leave_out_socks() -> None:
    """Leave a SOCKS proxy out where the HTTP library has no support for it: with one, it ends at any request, those to
    this machine too."""
    if importlib.util.find_spec("socksio"):
        return
    for name in [name for name in os.environ if name.lower() in PROXIES]:
        if os.environ[name].lower().startswith("socks"):
            del os.environ[name]
            log.warning(
                "the SOCKS proxy of %s is left out, as no library here can use it; install socksio for sources "
                "that need it", name,
            )  # fmt: skip


def prepare_process() -> None:
    """For a run in this process: make the home, and turn Prefect's console lines off, as ours are printed anyway.

    Raises NightStopped if the home cannot be made or written to.
    """
    make_home()
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def make_home() -> Path:
    """The home, made if it is missing. Raises NightStopped if it cannot be made or written to."""
    home = Settings.load().home
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        blocker = in_the_way(home)
        where = "it" if blocker == home else blocker
        reason = f"{where} is {what_it_is(blocker)}" if blocker else error.strerror
        raise NightStopped(
            f"the home {home} cannot be made: {reason}; set NIGHTSCHOOL_HOME to a folder that is there or can be made"
        ) from None
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise NightStopped(
            f"the home {home} cannot be written to by user {os.getuid()}; give that user the right, or set "
            "NIGHTSCHOOL_HOME to another folder"
        )
    return home


def in_the_way(folder: Path) -> Path | None:
    """What lies where a folder, or one above it, is to be, and is none."""
    for path in (folder, *folder.parents):
        if os.path.lexists(path):
            return None if path.is_dir() else path
    return None


def what_it_is(path: Path) -> str:
    """What a path is that is no folder, in words."""
    if path.is_file():
        return "a file"
    return "a link to nothing" if path.is_symlink() else "no folder"


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


def who_acts() -> str:
    """USER@HOST of this process, for what is written down of who did something."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def notify_urls() -> str:
    """NIGHTSCHOOL_NOTIFY: who is told of a failure, as addresses of Apprise with commas between; empty if nobody."""
    return os.environ.get("NIGHTSCHOOL_NOTIFY", "")


def child_environment(**values: str) -> dict[str, str]:
    """The environment of this process with some variables added, for a child process."""
    return os.environ | values


def path_with(folder: Path) -> str:
    """PATH with a folder before all others."""
    return os.pathsep.join([str(folder), os.environ.get("PATH", os.defpath)])


@dataclass(frozen=True)
class Settings:
    """Absolute addresses of everything a night reads and writes."""

    home: Path
    tracking_uri: str
    artifacts: str = ""
    """URI of the folder that a new experiment puts its artifacts in; empty where none was chosen."""

    @property
    def has_own_database(self) -> bool:
        """Whether runs are kept in a database that moves with the home."""
        return self.tracking_uri.startswith(f"sqlite:///{self.home}/")

    @classmethod
    def load(cls) -> Settings:
        """NIGHTSCHOOL_HOME (default: `store` in the project's folder), MLFLOW_TRACKING_URI (default: SQLite under the
        home) and NIGHTSCHOOL_ARTIFACTS, a folder or a URI.

        Raises NightStopped if the home is given as `~` and the user has no home folder.
        """
        given = os.environ.get("NIGHTSCHOOL_HOME")
        try:
            home = Path(given).expanduser().absolute() if given else PROJECT / DEFAULT_HOME
        except RuntimeError:
            raise NightStopped(
                f"NIGHTSCHOOL_HOME is {given!r:.200}, and no home folder of that user is known; "
                "give the folder in full, from / on"
            ) from None
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
        if uri.startswith("sqlite:///"):
            uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
        artifacts = os.environ.get("NIGHTSCHOOL_ARTIFACTS", "").rstrip("/")
        if artifacts and "://" not in artifacts:
            artifacts = Path(artifacts).expanduser().absolute().as_uri()
        return cls(home, uri, artifacts)
