"""Releases of an index that a server is given, good and bad ones."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_model import random_sequences, write_protein_index

from protclip.index.manifest import read_index_manifest, write_index_manifest
from protclip.manifest import read_manifest
from protclip.questions import Answer, Options, Question
from protclip.retrieval import Retriever
from protclip.trained_model import ProtCLIP


def write_release(folder: Path, model: ProtCLIP, name: str, *, count: int = 300, seed: int = 0) -> str:
    """An index of random proteins whose names begin with that of the release."""
    (folder / name).mkdir(parents=True)
    names = [f"{name} {i}" for i in range(count)]
    return write_protein_index(folder / name, model, random_sequences(count, seed), columns={"name": names})


def damage(index: str, folder: Path) -> str:
    """A copy of an index with a changed byte."""
    shutil.copytree(index, folder)
    path = folder / "segment-00000.hnsw"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return str(folder)


def make_too_large(index: str, folder: Path) -> str:
    """A copy of an index whose manifest says that it has more rows than a machine has room for."""
    shutil.copytree(index, folder)
    manifest, files = read_index_manifest(index), read_manifest(index, "index")["files"]
    (segment,) = manifest.segments
    rows = 2**31 - 1
    larger = replace(manifest, count=rows, segments=(replace(segment, rows=rows, live=rows),))
    write_index_manifest(str(folder), larger, files)
    return str(folder)


class Expected:
    """What each of several releases answers to a question; an answer must be that of the one that it names."""

    def __init__(self, indexes: Sequence[str], checkpoint: str, *, sequence: str, k: int) -> None:
        """Ask each."""
        self.body: dict[str, object] = {"sequence": sequence, "k": k}
        self.answers: dict[str, Answer] = {}
        self.seen: dict[str, int] = {}
        """Answers of each release that were right."""
        for index in indexes:
            retriever = Retriever.load(index, checkpoint=checkpoint)
            (answer,) = retriever.search_all([Question(sequence=sequence)], Options(k=k))
            self.answers[answer.index] = answer
            self.seen[answer.index] = 0

    def problem(self, answer: dict[str, Any]) -> str | None:
        """What is wrong with an answer of the server."""
        expected = self.answers.get(answer["index"])
        if expected is None:
            return f"of an unknown index {answer['index']}"
        for found, hit in zip(answer["hits"], expected.hits, strict=True):
            same = {name: value for name, value in hit.items() if name not in ("score", "percentile")}
            if abs(found["score"] - hit["score"]) > 1e-5 or any(found[name] != value for name, value in same.items()):
                return f"{found} in place of {hit}"
        self.seen[answer["index"]] += 1
        return None
