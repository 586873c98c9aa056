"""protclip pipeline as a submitted job, and what is to be read of it on the cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import requests
from pipelines import SECRET, assert_no_secret, secret, write_pipeline  # noqa: F401
from running import HANGS_S
from s3_server import s3  # noqa: F401

from cluster.folders import find_folder
from protclip.pipeline.status import read_status
from ray_jobs.local_head import start_head, stop_head

pytestmark = pytest.mark.prove


def test_a_submitted_pipeline_ends_and_neither_its_description_nor_any_log_holds_the_password(
    tmp_path: Path,
    secret: str,  # noqa: F811
) -> None:
    folder = f"{secret}/{tmp_path.name}/job"
    config = write_pipeline(tmp_path / "pipeline.yaml", folder, evaluate=None, questions=None)
    (tmp_path / "empty").mkdir()
    head = start_head(str(tmp_path / "ray"), num_cpus=4)
    try:
        submit = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--working-dir", str(tmp_path / "empty")]
        done = subprocess.run(
            [*submit, "--", "python", "-m", "protclip", "pipeline", str(config)],
            env=head.environment(),
            capture_output=True,
            text=True,
            timeout=3 * HANGS_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert read_status(folder).state == "done"
        with requests.Session() as session:
            session.trust_env = False
            token = Path(head.token_path).read_text()
            jobs = session.get(
                f"{head.dashboard_url}/api/jobs/", headers={"Authorization": f"Bearer {token}"}, timeout=60
            )
        assert "protclip pipeline" in jobs.text
        assert_no_secret(folder, done.stdout, done.stderr, jobs.text)
        private = find_folder(head.mark)
        assert private is not None
        logs = [path for path in private.path.rglob("*") if path.is_file() and "/logs/" in str(path)]
        assert len(logs) > 10
        assert [str(path) for path in logs if SECRET.encode() in path.read_bytes()] == []
    finally:
        stop_head(str(tmp_path / "ray"))
