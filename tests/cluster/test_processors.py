"""Hosts whose processors differ: one has instructions for bfloat16, as torch sees it, and another has none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kills import names_below
from several_hosts import Job, hosts_with, start_again, started
from tiny_model import random_sequences, tiny_model

from protclip import files
from protclip.model.inference import has_fast_bfloat16

pytestmark = pytest.mark.prove

NAME = f"p{os.getpid() % 10**7}"
OTHER = "ATEN_CPU_CAPABILITY=avx2"
"""torch computes as on a processor that has neither AVX-512 nor instructions for bfloat16."""


def test_the_driver_decides_on_the_dtype_of_all_hosts(tmp_path: Path) -> None:
    if not has_fast_bfloat16():
        pytest.skip("this processor has no instructions for bfloat16 that could be switched off")
    fasta, model = tmp_path / "some.fasta", str(tmp_path / "model")
    fasta.write_text("".join(f">A{i:05d}\n{sequence}\n" for i, sequence in enumerate(random_sequences(6000))))
    tiny_model().save_pretrained(model)

    def embed(folder: str) -> list[str]:
        command = ["python", "-m", "protclip", "embed", str(fasta), "--checkpoint", model, "--part-rows", "60"]
        return [*command, "--output", str(tmp_path / folder)]

    def parts(folder: str) -> dict[str, str]:
        at = str(tmp_path / folder)
        return {name: files.sha256(files.join(at, name)) for name in names_below(at) if name.endswith(".parquet")}

    # What clusters of one kind of processor compute; kills.py holds us to it that clusters and one process do alike.
    for dtype in ("bfloat16", "float32"):
        for folder, env in ((dtype, {}), (f"{dtype}-other", dict([OTHER.split("=")]))):
            command = [sys.executable, *embed(folder)[1:], "--dtype", dtype]
            subprocess.run(command, env={**os.environ, **env}, check=True, capture_output=True)
    with started(NAME, hosts=3) as cluster:
        start_again(cluster, "h3", env=dict([OTHER.split("=")]))
        for folder, driver, dtype in (("mixed", [], "bfloat16"), ("mixed-too", ["env", OTHER], "float32")):
            job = Job(cluster, folder, *driver, *embed(folder), "--workers", "3", said=tmp_path / f"{folder}.txt")
            job.wait_until(lambda: hosts_with(cluster, "ray::MapWorker") == {"h1", "h2", "h3"}, "not on all hosts")
            job.succeed(600)
            assert files.read_json(str(tmp_path / folder / "manifest.json"))["settings"]["dtype"] == dtype
            one, other, found = parts(dtype), parts(f"{dtype}-other"), parts(folder)
            assert found.keys() == one.keys()
            of_one = sum(found[name] == one[name] for name in found)
            of_other = sum(found[name] == other[name] for name in found)
            neither = [name for name in found if found[name] not in (one[name], other[name])]
            print(f"{dtype}: {len(found)} parts, {of_one} as of one kind, {of_other} as of the other")
            assert neither == []
            assert of_one and of_other  # both computed some
