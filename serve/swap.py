"""``protclip swap-index``: another index in the place of one that a server answers from, while it answers.

Ray Serve tells each replica in turn that ``user_config`` has changed, and a new replica starts with it. A replica never
gives up an index for one that does not answer (``serve.indexes``); here it is seen to that all have changed, or none.
"""

from __future__ import annotations

import gc
import json
import logging
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cluster.folders import RayFolder
    from serve.indexes import State

ASKING_S = 60.0
"""For all replicas to say how they are."""
SETTLED_S = 10.0
"""In which a change reaches all replicas, once nothing else is under way."""
BACK_S = 300.0
"""For all replicas to answer as before, after a change was refused or one of them died; one that starts needs most."""
WATCH_S = 0.2
"""Between two looks at them."""
STOPPING_S = 10.0
"""For Serve's own thread in this process to end."""


@click.command()
@click.argument("name")
@click.argument("index", required=False)
@click.option("--remove", is_flag=True, help="Have no index under this NAME any more.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Of the server, where several of yours run on this machine."
)
def main(*, name: str, index: str | None, remove: bool, port: int | None) -> None:
    """Have a running server answer from INDEX under this NAME, in the place of the index that has it now.

    No request fails: each replica in turn loads the new index beside the old one, which answers meanwhile, and so needs
    memory for both. An index that is damaged, another model's or too large is refused, and the old one goes on
    answering. NAME is `default` for the INDEX of `protclip serve`; a NAME that no index has adds one.

    \b
        protclip swap-index default /data/index-2026_05
        protclip swap-index texts --remove

    With --remove, requests that are under way are answered, and those that come later find no index of this NAME.
    `default` stays, and so does a last index.

    It finds the server that `protclip serve` runs on this machine, or the one on the cluster of RAY_ADDRESS.
    """
    from cluster import environment
    from cluster.connection import join_next, leave, start_or_join
    from protclip import files
    from protclip.errors import ConfigError
    from protclip.index.manifest import read_index_manifest
    from protclip.terminal import echo
    from serve.settings import read_user_config

    if remove == (index is not None):
        raise ConfigError("swap-index needs an INDEX that takes the place of the one with this NAME, or --remove.")
    if index is not None:
        index = files.absolute(index)
        read_user_config({"indexes": {name: index}})
    if environment.address() is None:
        join_next(*find_server(port))
    if index is not None:
        echo("checking the index", err=True)
        read_index_manifest(index, verify=not files.is_url(index))
    start_or_join()
    try:
        states = swap(name, index)
    finally:
        _stop_listening()
        leave()
    if index is None:
        told = f"is removed; {', '.join(states[0].fingerprints)} answer"
    else:
        told = f"the index {states[0].fingerprints[name]} answers"
    echo(f"{name}: {told}, in {len(states)} replicas")


def find_server(port: int | None) -> tuple[RayFolder, str]:
    """The folder and the address of the Ray of the server that runs on this machine.

    Args:
        port: of the server; None where there is one alone.

    Raises:
        ConfigError: if there is none, or several and the port does not tell which.
    """
    from cluster.folders import living_folders
    from protclip.errors import ConfigError
    from serve.server import SERVER_FILE

    found = {}
    for folder in living_folders():
        path = folder.path / SERVER_FILE
        if path.exists():
            told = json.loads(path.read_text())
            found[told["port"]] = folder, told["address"]
    if port is None and len(found) == 1:
        (port,) = found
    if port in found:
        return found[port]
    ports = ", ".join(map(str, sorted(found)))
    if not found:
        problem = "no server of yours runs on this machine; for one on a cluster, set RAY_ADDRESS"
    elif port is None:
        problem = f"several servers of yours run on this machine, on the ports {ports}; say which with --port"
    else:
        problem = f"no server of yours on this machine has port {port}; there is {ports}"
    raise ConfigError(f"{problem}.")


def swap(name: str, index: str | None) -> list[State]:
    """Have all replicas of the application answer from an index.

    Args:
        name: of the index.
        index: absolute path or URL; None to remove the one that has this name.

    Returns:
        what each replica says then.

    Raises:
        ConfigError: if there is no such application, no index that may be removed, or a replica refused or died; all
            answer as before then, or the message says that not all do yet. Or if another change came in between, or
            the index answers already and its folder was changed since.
    """
    from ray import serve  # noqa: F401  # it sets the level of its logs

    from protclip.errors import ConfigError
    from protclip.index.manifest import read_index_manifest

    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # what it says of its calls to the replicas
    before = _user_config()
    wanted = {"indexes": changed(before["indexes"], name, index)}
    if wanted == before:
        assert index is not None
        with _held_interrupts() as interrupted:  # the command that gave it may have been killed
            states, problem = _await(wanted, interrupted)
        if problem is not None:
            raise ConfigError(f"index {name!r} is that of {index} already, and does not answer everywhere: {problem}")
        if any(one.fingerprints[name] != read_index_manifest(index).fingerprint for one in states):
            raise ConfigError(
                f"index {name!r} is that of {index} already, which has changed; a release needs a folder of its own."
            )
        return states
    problems = _ask_all("check_indexes", wanted)
    if problems is None:
        raise ConfigError("nothing is changed, since a replica did not answer; run this again when it does.")
    if problem := next((one for one in problems if one is not None), None):
        raise ConfigError(f"refused, and all answer as before: {problem}")
    with _held_interrupts() as interrupted:
        _change(wanted)
        states, problem = _await(wanted, interrupted)
        if interrupted.is_set():
            _change(before)
            raise ConfigError("interrupted: the server goes back to the indexes that it had.")
        if problem is None:
            return states
        _change(before)
        _, still = _await(before, interrupted, going_back=True)
    if still is None:
        raise ConfigError(f"refused, and all answer as before: {problem}")
    raise ConfigError(
        f"refused: {problem}\nThe server was told to go back to the indexes that it had, but not all of its replicas "
        f"answer from them: {still}"
    )


def changed(indexes: Mapping[str, str], name: str, index: str | None) -> dict[str, str]:
    """The paths of the indexes by name, after one was put in place; without an index, after that name was removed.

    Raises:
        ConfigError: if there is none of this name to remove, or it must stay.
    """
    from protclip.errors import ConfigError
    from serve.settings import DEFAULT_INDEX

    if index is not None:
        return {**indexes, name: index}
    there = ", ".join(map(repr, indexes))
    if name not in indexes:
        raise ConfigError(f"index {name!r:.80}: is not served, so it cannot be removed; there are {there}.")
    if name == DEFAULT_INDEX or len(indexes) == 1:
        why = "it is asked where a request names none" if name == DEFAULT_INDEX else "it is the last one"
        raise ConfigError(f"index {name!r:.80}: stays, for {why}; another can take its place. There are {there}.")
    return {one: path for one, path in indexes.items() if one != name}


def _application() -> Mapping[str, Any]:
    """What Serve says of the application."""
    from protclip.errors import ConfigError
    from serve.app import DEPLOYMENT
    from serve.server import APP_NAME

    client = _client()
    applications = {} if client is None else client.get_serve_details()["applications"]
    if DEPLOYMENT not in applications.get(APP_NAME, {}).get("deployments", {}):
        raise ConfigError(
            f"this Ray serves no application {APP_NAME!r} whose replicas hold whole indexes; it serves "
            f"{', '.join(map(repr, applications)) or 'nothing'}. For an index in shards, deploy again."
        )
    application: Mapping[str, Any] = applications[APP_NAME]
    return application


def _client() -> Any:
    """Serve's controller, as Serve's own functions have it; None where no Serve runs."""
    from ray.serve.context import _get_global_client

    return _get_global_client(raise_if_no_controller_running=False)


def _stop_listening() -> None:
    """End Serve's own thread, which would join the Ray again to hear of replicas after this process has left it.

    What listens is told first: news that finds no thread is told to the controller as an error, which joins the Ray
    again too. On a busy machine the command then never ended.
    """
    from ray.serve._private.long_poll import LongPollClient
    from ray.serve._private.router import SingletonThreadRouter

    loop = SingletonThreadRouter._asyncio_loop
    if loop is None:
        return
    for one in gc.get_objects():  # Serve keeps them in several places
        if type(one) is LongPollClient and one.event_loop is loop:
            one.stop()
    loop.call_soon_threadsafe(loop.stop)
    deadline = time.monotonic() + STOPPING_S
    while loop.is_running() and time.monotonic() < deadline:
        time.sleep(0.005)


def _user_config() -> Mapping[str, Any]:
    from serve.app import DEPLOYMENT

    config: Mapping[str, Any] = _application()["deployments"][DEPLOYMENT]["deployment_config"]["user_config"]
    return config


def _ask_all(method: str, *arguments: object) -> list[Any] | None:
    """What each replica that takes requests says; None where one of them does not answer, or died meanwhile."""
    from ray import serve
    from ray.exceptions import RayError

    from serve.app import DEPLOYMENT
    from serve.server import APP_NAME

    handle = serve.get_deployment_handle(DEPLOYMENT, APP_NAME)
    try:
        return handle.broadcast(method, *arguments).results(timeout_s=ASKING_S)
    except (RayError, TimeoutError):
        return None


def _all_states(application: Mapping[str, Any]) -> list[State] | None:
    """What all replicas say; None while Serve starts, changes or ends one, or one does not answer."""
    from serve.app import DEPLOYMENT

    replicas = application["deployments"][DEPLOYMENT]["replicas"]
    if application["status"] != "RUNNING" or any(one["state"] != "RUNNING" for one in replicas):
        return None
    states = _ask_all("state")
    return states if states and len(states) == len(replicas) else None


@contextmanager
def _held_interrupts() -> Iterator[threading.Event]:
    """Within, Ctrl-C sets the event instead of raising an error, which Ray's callbacks may lose."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _await(
    wanted: Mapping[str, Any], interrupted: threading.Event, *, going_back: bool = False
) -> tuple[list[State], str | None]:
    """Wait until every replica was told; what they say then, and why one of them did not change.

    Going back, it waits for replicas that take the place of dead ones too, for ``BACK_S``.

    Raises:
        ConfigError: if something else has changed the indexes meanwhile.
    """
    from protclip.errors import ConfigError

    settled_s = 0.0
    deadline = time.monotonic() + BACK_S
    while not interrupted.wait(WATCH_S):
        application = _application()
        failed = application["status"] in ("DEPLOY_FAILED", "UNHEALTHY")
        if time.monotonic() > deadline if going_back else failed:
            return [], f"a replica died or could not start. Ray Serve says: {application['message']}"
        states = _all_states(application)
        if states is not None:
            done = [one for one in states if one.told == wanted and not one.changing]
            problem = next((one.refused for one in done if one.refused is not None), None)
            if problem is not None or len(done) == len(states):
                return states, problem
            settled_s = 0.0 if done or any(one.changing for one in states) else settled_s + WATCH_S
            if settled_s > SETTLED_S:
                raise ConfigError(
                    "another swap-index or deployment came in between, and its indexes answer; `GET /v1/indexes` says "
                    "which they are. Run this again where they are not those that you want."
                )
    return [], "it was not waited for, since you interrupted this command"


def _change(user_config: Mapping[str, Any]) -> None:
    """Give the application another ``user_config``, and nothing else.

    ``serve.run`` would give it a new version as well, for which Serve replaces replicas.
    """
    import ray
    from ray import cloudpickle
    from ray.serve.generated import serve_pb2
    from ray.serve.schema import ServeDeploySchema

    from serve.app import DEPLOYMENT
    from serve.server import APP_NAME

    controller = _client()._controller
    if _application()["source"] == "declarative":  # by `serve deploy`: its file is changed, as Serve keeps it
        configs = {
            name: one.model_dump(exclude_unset=True)
            for name, one in ray.get(controller.get_app_configs.remote()).items()
        }
        (own,) = [one for one in configs[APP_NAME]["deployments"] if one["name"] == DEPLOYMENT]
        own["user_config"] = user_config
        schema = ServeDeploySchema.model_validate({"applications": list(configs.values())})
        ray.get(controller.apply_config.remote(schema))
        return
    messages: Any = serve_pb2
    told = messages.DeploymentRoute.FromString(ray.get(controller.get_deployment_info.remote(DEPLOYMENT, APP_NAME)))
    deployment = told.deployment_info
    deployment.deployment_config.user_config = cloudpickle.dumps(dict(user_config))  # type: ignore[no-untyped-call]
    arguments = messages.DeploymentArgs(
        deployment_name=DEPLOYMENT,
        deployment_config=deployment.deployment_config.SerializeToString(),
        replica_config=deployment.replica_config.SerializeToString(),
        deployer_job_id=ray.get_runtime_context().get_job_id(),
        route_prefix=told.route,
        ingress=True,
    )
    ray.get(
        controller.deploy_applications.remote(
            {APP_NAME: [arguments.SerializeToString()]},
            {APP_NAME: messages.ApplicationArgs(external_scaler_enabled=False).SerializeToString()},
        )
    )
