"""The manifests of a KubeRay cluster hold together, fit the image, and run commands that exist.

The shape of ray.io/v1 is written down here as far as the manifests use it, after KubeRay's API reference; a key beside
it is a misspelt one. Pod templates are checked against Kubernetes' own schemas where kubernetes-validate is installed.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from protclip import files
from protclip.config import PretrainConfig
from protclip.config_file import load_config
from protclip.version import __version__
from ray_jobs.pretrain.lanes import TASK_CPUS
from ray_jobs.pretrain.main import main as pretrain
from ray_jobs.pretrain.run import find_config
from serve.settings import AppArgs

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
MANIFESTS = ["raycluster.yaml", "rayjob-pretrain.yaml", "rayservice-shards.yaml"]
SECRETS = {"protclip-token", "protclip-storage"}


def shape(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON schema of an object with these keys and no other."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }


TEXT, COUNT, FLAG = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
RESOURCES = shape({"requests": TEXTS, "limits": TEXTS})
TEMPLATE = shape({"spec": {"type": "object"}}, {"metadata": shape({"annotations": TEXTS})})
HEAD = shape({"rayStartParams": TEXTS, "template": TEMPLATE})
WORKERS = shape(
    {
        "groupName": TEXT,
        "replicas": COUNT,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "rayStartParams": TEXTS,
        "template": TEMPLATE,
    }
)
CLUSTER = shape(
    {
        "rayVersion": TEXT,
        "authOptions": shape({"mode": {"const": "token"}, "secretName": TEXT}),
        "headGroupSpec": HEAD,
        "workerGroupSpecs": {"type": "array", "items": WORKERS, "minItems": 1},
    },
    {
        "enableInTreeAutoscaling": FLAG,
        "autoscalerOptions": shape(
            {
                "idleTimeoutSeconds": COUNT,
                "upscalingMode": {"enum": ["Default", "Conservative"]},
                "resources": RESOURCES,
            }
        ),
    },
)
JOB = shape(
    {
        "entrypoint": TEXT,
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode"]},
        "shutdownAfterJobFinishes": FLAG,
        "ttlSecondsAfterFinished": COUNT,
        "backoffLimit": COUNT,
        "rayClusterSpec": CLUSTER,
    }
)
SERVICE = shape({"serveConfigV2": TEXT, "rayClusterConfig": CLUSTER})
SPECS = {"RayCluster": CLUSTER, "RayJob": JOB, "RayService": SERVICE}


def manifest(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "cluster" / name).read_text())
    return content


def cluster(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = manifest(name)["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig", spec)


def pods(name: str) -> list[dict[str, Any]]:
    """The pods' specs, the head's first."""
    groups = [cluster(name)["headGroupSpec"], *cluster(name)["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def parsed(command: str) -> PretrainConfig:
    """The settings of a command line, as the command itself would read them."""
    words = shlex.split(command)
    start = words.index("pretrain") + 1
    assert words[:start] in (["protclip", "pretrain"], ["python", "-m", "protclip", "pretrain"])
    arguments = pretrain.make_context("pretrain", words[start:]).params
    return load_config(find_config(arguments["config"]), arguments["overrides"])


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_has_the_shape_that_kuberay_takes(name: str) -> None:
    content = manifest(name)
    head = shape(
        {"apiVersion": {"const": "ray.io/v1"}, "kind": {"enum": list(SPECS)}, "metadata": shape({"name": TEXT})}
    )
    jsonschema.validate({key: value for key, value in content.items() if key != "spec"}, head)
    jsonschema.validate(content["spec"], SPECS[content["kind"]])


def test_a_misspelt_key_is_seen() -> None:
    content = manifest("rayjob-pretrain.yaml")["spec"]
    content["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(content, JOB)


@pytest.mark.parametrize("name", MANIFESTS)
def test_pods_are_what_kubernetes_takes(name: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for spec in pods(name):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
        validator.validate(pod, "1.30", strict=True)


@pytest.mark.parametrize("name", MANIFESTS)
def test_groups_have_names_of_their_own_and_sizes_in_order(name: str) -> None:
    groups = cluster(name)["workerGroupSpecs"]
    assert len({group["groupName"] for group in groups}) == len(groups)
    for group in groups:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        if not cluster(name).get("enableInTreeAutoscaling"):
            assert group["minReplicas"] == group["maxReplicas"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_node_runs_the_image_of_this_version_with_its_ray(name: str) -> None:
    images = {container["image"] for spec in pods(name) for container in spec["containers"]}
    assert images == {f"registry.example.com/protclip:{__version__}"}
    assert f"ray=={cluster(name)['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()


@pytest.mark.parametrize("name", MANIFESTS)
def test_pods_have_token_storage_memory_and_time_to_end(name: str) -> None:
    text = (ROOT / "cluster" / "README.md").read_text()
    assert {cluster(name)["authOptions"]["secretName"]} < SECRETS
    for secret in SECRETS:
        assert f"kubectl create secret generic {secret} " in text
    for spec in pods(name):
        (container,) = spec["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "protclip-storage"}}]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/dev/shm", "/tmp"}
        shm, memory = volumes["shm"]["emptyDir"], container["resources"]["limits"]["memory"]
        assert shm["medium"] == "Memory"
        share = int(shm["sizeLimit"].removesuffix("Gi")) / int(memory.removesuffix("Gi"))
        assert 0.3 < share < 0.5  # Ray's own share must fit, and leave memory for the processes
        (grace,) = re.findall(r"--grace-period (\d+)", container["lifecycle"]["preStop"]["exec"]["command"][-1])
        assert int(grace) < spec["terminationGracePeriodSeconds"]
        assert spec["securityContext"]["runAsUser"] == 1000


def test_the_job_runs_a_ready_config_that_its_machines_can_hold() -> None:
    config = parsed(manifest("rayjob-pretrain.yaml")["spec"]["entrypoint"])
    assert files.is_url(config.run_dir)
    assert files.is_url(config.data.pairs)
    held = {"cpu": 0.0, "nvidia.com/gpu": 0.0}
    for group in cluster("rayjob-pretrain.yaml")["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        for resource in held:
            held[resource] += group["replicas"] * float(container["resources"]["limits"].get(resource, 0))
    workers = config.workers
    assert held["nvidia.com/gpu"] == workers.num * workers.use_gpu
    assert held["cpu"] >= workers.num * (workers.resources["CPU"] + TASK_CPUS)


def test_the_service_has_a_machine_with_the_memory_for_each_replica_of_a_shard() -> None:
    (application,) = yaml.safe_load(manifest("rayservice-shards.yaml")["spec"]["serveConfigV2"])["applications"]
    args = AppArgs.model_validate(application["args"])
    assert args.sharding is not None and files.is_url(args.sharding.index) and files.is_url(args.checkpoint)
    (group,) = cluster("rayservice-shards.yaml")["workerGroupSpecs"]
    assert group["replicas"] == args.sharding.num_shards * args.sharding.num_replicas
    assert args.sharding.max_replicas_per_node == 1
    memory = group["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
    assert args.sharding.memory_bytes <= 0.7 * int(memory.removesuffix("Gi")) * 2**30


def test_commands_in_the_readme_are_ours() -> None:
    text = (ROOT / "cluster" / "README.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"-- ((?:protclip|python -m protclip) pretrain [^\n#`]*)", text)
    assert len(commands) >= 2
    for command in commands:
        assert files.is_absolute(parsed(command).run_dir)
    for name in [*MANIFESTS, "Dockerfile"]:
        assert f"cluster/{name}" in text


def test_the_image_has_what_is_copied_into_it_and_nothing_else() -> None:
    dockerfile = (ROOT / "cluster" / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (.*) \S+$", dockerfile, re.MULTILINE) for word in line.split()}
    ignore = (ROOT / "cluster" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == copied
    assert ignore[1] == "*"
    assert all(list(ROOT.glob(name)) for name in copied)
    assert dockerfile.splitlines()[-3] == "USER 1000"
