"""The life of a server: a thread starts it, waits, and ends it in order, while the main thread minds signals and Ray.

Signals never interrupt what Ray does: the thread asks for them between its steps. Where its Ray has died, nothing is
asked of Ray any more.
"""

from __future__ import annotations

import http.client
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cluster import environment
from cluster.connection import abandon, leave, lost, start_or_join
from cluster.ports import check_port
from protclip import files
from protclip.errors import ConfigError
from protclip.terminal import echo
from serve.haproxy import close_frontend, is_wanted, use_haproxy
from serve.signals import Signals

if TYPE_CHECKING:
    from serve.settings import AppArgs, UserConfig

APP_NAME = "protclip"
SERVER_FILE = "server.json"
"""In the folder of its own Ray, of a server that is ready: its port, and the address of the Ray."""
OBJECT_STORE_BYTES = 256 * 2**20
"""Of a Ray that is started here: what travels between the replicas is small, and Ray would take 30 % of the memory."""
ANSWERING_S = 5.0
"""After a signal, beyond a request's own time: for what is under way to be answered."""
DELETING_S = 10.0
"""After that, without HAProxy: for Serve to end the replicas."""
ENDING_S = 15.0
"""After what is under way was answered: for all processes to end."""
ROUTE_S = 60.0
"""For a route to answer once the replicas are ready."""
ASKING_S = 5.0
"""For one answer of it."""
WATCH_S = 0.2
"""Between two looks at Ray and for signals."""


def run(make_settings: Callable[[], tuple[AppArgs, UserConfig]], host: str, port: int, signals: Signals) -> None:
    """Serve until a signal comes, or Ray dies.

    It returns when it was ended by a signal after it was ready. It exits with 128 + the signal's number where one came
    before, where a second one came, and where it did not end in time; with 1 where Ray died.

    Raises:
        ProtclipError: if an index, the checkpoint or the address cannot be served, or Ray does not start.
    """
    server = _Server(make_settings, host, port)
    # The kernel ends Ray's processes with the thread that started them.
    thread = threading.Thread(target=server.run, name="server", daemon=True)
    thread.start()
    deadline = None
    while not server.ended.wait(WATCH_S):
        if died := lost():
            echo(f"error: the server ends, for {died}", err=True)
            _end_at_once(1)
        if received := signals.received():
            server.stop.set()
            deadline = deadline or time.monotonic() + server.answering_s + ENDING_S
            # Before a server is ready nobody waits for it, and a Ray of its own may go as it is.
            nothing_to_lose = not (server.was_ready or (server.uses_ray and server.joined))
            if len(received) > 1 or nothing_to_lose or time.monotonic() > deadline:
                _end_at_once(128 + received[-1])
    thread.join()
    if not server.uses_ray:
        signals.unblock()  # there is nothing that they could interrupt, and the caller may go on
    if server.error is not None:
        raise server.error
    echo("stopped")
    if not server.was_ready:
        sys.exit(128 + signals.received()[0])


def refuse_open_server(host: str, args: AppArgs) -> None:
    """Refuse to answer whoever asks where other machines may.

    Args:
        host: the address or name that is listened on.
        args: the settings.

    Raises:
        ConfigError: if there are no keys and the host is not the loopback.
    """
    from serve.keys import NO_KEYS

    if args.keys == NO_KEYS and not environment.is_loopback(host):
        raise ConfigError(
            f"the server would listen on {host} without keys, and answer whoever reaches it; give --keys FILE with "
            "keys by `protclip make-key NAME`, or listen on the loopback, --host 127.0.0.1."
        )


def refuse_taken_place(applications: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to replace what is served by the Serve that was joined.

    Args:
        applications: what Serve says of each, by its name.

    Raises:
        ConfigError: if one has our name or our place.
    """
    for name, application in applications.items():
        if name == APP_NAME or application["route_prefix"] == "/":
            raise ConfigError(
                f"the cluster of RAY_ADDRESS serves the application {name!r} at {application['route_prefix']}, which "
                f"would be replaced; end it first, or unset RAY_ADDRESS for a Ray of its own."
            )


def answers(host: str, port: int) -> bool:
    """Whether the application answers where the server listens."""
    reached = {"0.0.0.0": environment.LOOPBACK, "::": "::1"}.get(host, host)
    connection = http.client.HTTPConnection(reached, port, timeout=ASKING_S)
    try:
        connection.request("GET", "/health", headers={"Host": "localhost"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class _Server:
    """What the thread does."""

    def __init__(self, make_settings: Callable[[], tuple[AppArgs, UserConfig]], host: str, port: int) -> None:
        self.make_settings = make_settings
        self.host = host
        self.port = port
        self.stop = threading.Event()
        """Set when it shall end."""
        self.uses_ray = False
        """Set before Ray is loaded."""
        self.was_ready = False
        self.answering_s = 0.0
        self.error: BaseException | None = None
        self.ended = threading.Event()
        self._folder: Path | None = None
        """Of a Ray of its own."""
        self._haproxy_folder: Path | None = None
        self._started_serve = False
        self._deployed = False
        self.joined = environment.address() is not None

    def run(self) -> None:
        try:
            args, config = self._check()
            self.answering_s = args.limits.request_timeout_s + ANSWERING_S
            self.uses_ray = True
            try:
                self._start(args, config)
                self.stop.wait()
            finally:
                self._end()
        except _Stopped:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()

    def _check(self) -> tuple[AppArgs, UserConfig]:
        echo("checking the index and the model", err=True)
        from protclip.index.manifest import read_index_manifest
        from serve.settings import check_args

        args, config = self.make_settings()
        refuse_open_server(self.host, args)
        environment.refuse_open_door(self.host, f"--host {self.host}")
        local = [path for path in config.indexes.values() if not files.is_url(path)]
        model = check_args(args, verify=bool(local))
        for path in config.indexes.values():
            read_index_manifest(path, verify=path in local).check_model(model, path)
        if not self.joined:  # there a Serve may run already, and listen elsewhere
            check_port(self.host, self.port)
            is_wanted()
        return args, config

    def _start(self, args: AppArgs, config: UserConfig) -> None:
        # Ray runs its workers at niceness 15: on a busy machine the server would start and answer last of all.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # The controller would give up a proxy that is not ready after 15 s, and end it: on a busy machine, each one.
        os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
        # So that Ray's agents, which rename themselves, keep their mark and are found when their raylet has died.
        os.environ.setdefault("SPT_NOENV", "1")
        echo("joining the Ray cluster" if self.joined else "starting Ray", err=True)
        start_or_join(object_store_bytes=OBJECT_STORE_BYTES, before_start=self._prepare)
        self._go_on()
        # Serve is imported after its variables were set.
        import ray
        from ray import serve
        from ray.serve.config import HTTPOptions
        from ray.serve.context import _get_global_client
        from ray.serve.schema import LoggingConfig

        from serve.app import application

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        logs = LoggingConfig(log_level="WARNING", enable_access_log=False)
        if self.joined:
            _warn_without_front()
        else:
            _refuse_missing_gpus(args)
        if (client := _get_global_client(raise_if_no_controller_running=False)) is not None:
            # A Serve that runs on the cluster already goes on listening where it did.
            refuse_taken_place(client.get_serve_details()["applications"])
            self.host, self.port = client.http_config.host, client.http_config.port
            refuse_open_server(self.host, args)
        else:
            if self.joined:
                check_port(self.host, self.port)
            # Behind HAProxy the replicas' own ports listen on this address too, and the frontend where the script says.
            listen = environment.LOOPBACK if self._haproxy_folder is not None else self.host
            self._started_serve = True
            serve.start(http_options=HTTPOptions(host=listen, port=self.port), logging_config=logs)
        self._go_on()
        echo("loading the model and the index", err=True)
        self._deployed = True
        app = application(args, config.indexes)
        target = serve.RunTarget(app, name=APP_NAME, route_prefix="/", logging_config=logs)
        serve.run_many([target], wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
        self._await_replicas()
        self._await_route()
        url = f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"
        self._go_on()
        self.was_ready = True
        if self._folder is not None:
            address = ray.get_runtime_context().gcs_address
            files.write_json(str(self._folder / SERVER_FILE), {"port": self.port, "address": address})
        echo(f"ready: {url}  (a page to search with; routes and forms: {url}/docs; Ctrl-C stops it)")

    def _prepare(self, folder: Path) -> None:
        """For a Ray of its own, before it starts."""
        from serve.front import use_front

        self._folder = folder
        use_front()
        if use_haproxy(folder, host=self.host, port=self.port):
            self._haproxy_folder = folder

    def _await_replicas(self) -> None:
        from ray import serve
        from ray.serve.schema import ApplicationStatus

        while True:
            application = serve.status().applications.get(APP_NAME)
            if application is None or application.status == ApplicationStatus.DEPLOY_FAILED:
                why = "it was deleted" if application is None else application.message
                raise ConfigError(f"the application did not start: {why}")
            if application.status == ApplicationStatus.RUNNING:
                return
            self._pause()

    def _await_route(self) -> None:
        """Wait until what listens knows the replicas; on a cluster it may be on other machines alone."""
        deadline = time.monotonic() + ROUTE_S
        while not self.joined and not answers(self.host, self.port):
            if time.monotonic() > deadline:
                raise ConfigError(f"the application runs, and {self.host}:{self.port} does not answer for it.")
            self._pause()

    def _pause(self) -> None:
        self.stop.wait(WATCH_S)
        self._go_on()

    def _go_on(self) -> None:
        if self.stop.is_set():
            raise _Stopped

    def _end(self) -> None:
        import ray

        if not ray.is_initialized():
            leave()
            return
        if self._haproxy_folder is not None:
            # With HAProxy everything has been answered, and all of Ray may go at once.
            if self.was_ready and not close_frontend(self._haproxy_folder, self.answering_s):
                echo(f"warning: not everything was answered within {self.answering_s:.0f} s", err=True)
        elif self.joined or self.was_ready:
            from ray import serve

            if self._deployed:
                self._delete()
            if self.joined and self._started_serve and not serve.status().applications:
                serve.shutdown()  # type: ignore[no-untyped-call]
        leave()

    def _delete(self) -> None:
        """Have the replicas answer what they hold, and end."""
        from ray import serve

        serve.delete(APP_NAME, _blocking=False)  # it would wait for 60 s, whatever a request's time is
        deadline = time.monotonic() + self.answering_s + DELETING_S
        while APP_NAME in serve.status().applications:
            if time.monotonic() > deadline:
                echo("warning: the application did not end in time", err=True)
                return
            time.sleep(WATCH_S)


def _refuse_missing_gpus(args: AppArgs) -> None:
    """Raise ConfigError where a replica would wait for ever for a GPU that this machine has not."""
    import ray

    replicas = args.num_replicas if isinstance(args.num_replicas, int) else args.num_replicas.min_replicas
    needed = replicas * args.num_gpus
    there: float = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    if needed > there:
        raise ConfigError(
            f"num_gpus={args.num_gpus:g} for {replicas} replicas, and Ray finds {there:g} on this machine."
        )


def _warn_without_front() -> None:
    """Say so where the cluster that was joined was started without our front (``serve.front``)."""
    import ray

    from serve import front

    if not ray.get(ray.remote(num_cpus=0)(front.is_used).remote()):
        echo(
            "warning: this cluster was started without "
            f"{front.VARIABLE}={front.HOOK}: heads of requests, connections and Serve's own errors are as Serve has "
            "them (docs/serving.md)",
            err=True,
        )


class _Stopped(Exception):  # noqa: N818
    """A signal came before the server was ready."""


def _end_at_once(code: int) -> NoReturn:
    """End the process as it is, threads and all, after the processes and the folder of its Ray."""
    abandon()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
