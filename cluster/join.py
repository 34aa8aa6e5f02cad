"""The way into a Ray cluster: connect, and see what a node is. Ray is imported here only, once one is asked for."""

import io
import os
import platform
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError
from ..files import num_cores

AUTO = "auto"
_NEW = "local"
"""Ray's word for a cluster of one's own."""
_REACH_SECONDS = 5.0


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """The module `ray`, connected to a cluster; one that was started for this is stopped again.

    Raises:
        InputError: Ray is not installed, the cluster cannot be reached, or has other versions.
    """
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    address = running_here() if address == AUTO else address
    if address != _NEW:
        _require_reachable(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    in_main = threading.current_thread() is threading.main_thread()
    with redirect_stdout(_WithoutRay(sys.stdout)), redirect_stderr(_WithoutRay(sys.stderr)):
        try:
            ray.init(
                address,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
            for number, handler in handlers.items() if in_main else ():
                signal.signal(number, handler)  # Ray put its own in their place
            yield ray
        except (ConnectionError, RuntimeError, ValueError) as error:
            if isinstance(error, InputError) or ray.is_initialized():
                raise
            raise _not_connected(address, error) from error
        finally:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # it tells again of what died
                ray.shutdown()


class _WithoutRay:
    """A stream without the pages that Ray writes of what died while it listens: our own line tells it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """As a stream does."""
        if threading.current_thread().name == "ray_listen_error_messages":
            return len(text)
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise InputError(
            "Ray is not installed", cure='pip install "ball-action-spotting[ray]" (in a checkout: -e ".[cpu,ray]")'
        ) from None
    return ray


def running_here() -> str:
    """The address that RAY_ADDRESS says, else that of a cluster that runs on this machine, else to start one.

    Ray's own search believes what a cluster has left that was killed, and tries for minutes to reach it.
    """
    if os.environ.get("RAY_ADDRESS", AUTO) != AUTO:
        return os.environ["RAY_ADDRESS"]
    record = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray", "ray_current_cluster")
    try:
        address = record.read_text().strip()
        _require_reachable(address)
    except (OSError, ValueError):
        return _NEW
    return address


def _require_reachable(address: str) -> None:
    """Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "://" in address:
        raise InputError(
            "--ray is not usable",
            got=address,
            wanted="auto, or host:port of the cluster's head, such as 10.0.0.1:6379",
            cure="join the cluster on this machine (ray start --address HOST:6379 --num-cpus 0), then --ray auto",
        )
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"no Ray cluster can be reached at {address}",
            got=error,
            cure="ray start --head there, or --ray auto to start one on this machine",
        ) from error


def _not_connected(address: str, error: Exception) -> InputError:
    text = str(error).strip()
    if "ersion mismatch" in text:
        return InputError(
            f"the Ray cluster ({address}) has other versions of Ray or Python",
            got=" ".join(text.split()),
            cure="install the same Python, Ray and bas on every node",
        )
    if "authenticat" in text.lower():
        return InputError(
            f"the Ray cluster ({address}) asks for its token",
            got=f"RAY_AUTH_MODE={os.environ.get('RAY_AUTH_MODE', 'disabled')}",
            wanted="RAY_AUTH_MODE=token, here and where the nodes are started",
            cure="export RAY_AUTH_MODE=token, with the head's ~/.ray/auth_token on every node",
        )
    return InputError(
        f"the Ray cluster ({address}) cannot be used from here",
        got=text.splitlines()[0] if text else type(error).__name__,
        cure="this machine must be one of its nodes: ray start --address HOST:6379 --num-cpus 0; what is left of a "
        "cluster that died: ray stop",
    )


def make_look() -> Callable[[], dict[str, Any]]:
    """A function that tells of a node, pickled by value as it is of no module: `bas` may not be there."""

    def look() -> dict[str, Any]:
        import importlib
        import platform
        import socket

        try:
            found = importlib.import_module("bas").__version__
        except Exception as error:
            found = f"not to be imported ({error})"
        versions = {"bas": found, "Python": platform.python_version()}
        return {"host": socket.gethostname(), "cores": num_cores(), "versions": versions}

    return look


def wrong_versions(facts: dict[str, Any]) -> InputError | None:
    """Why a node cannot be used that says this of itself; None where it can."""
    mine = {"bas": __version__, "Python": platform.python_version()}
    theirs = facts["versions"]
    if theirs["bas"] == mine["bas"] and theirs["Python"].split(".")[:2] == mine["Python"].split(".")[:2]:
        return None
    return InputError(
        f"node {facts['host']} has other versions than this machine",
        got=", ".join(f"{name} {version}" for name, version in theirs.items()),
        wanted=", ".join(f"{name} {version}" for name, version in mine.items()),
        cure="install the same bas and Python on every node, and start its ray from that environment",
    )
