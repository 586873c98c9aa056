"""What the finished folder of a stage holds, in a few numbers."""

from __future__ import annotations

from typing import Any

from protclip import files
from protclip.errors import DataError
from protclip.manifest import FILE_NAME
from protclip.pipeline.records import FOLDERS

_KEYS: dict[str, tuple[str, ...]] = {
    "embed": ("rows", "quarantined", "dimension"),
    "questions": ("rows", "quarantined", "dimension"),
    "index": ("count", "recall_at_10", "ef_search"),
}


def counted(folder: str, stage: str) -> dict[str, Any]:
    """What a stage has made, in the pipeline's folder."""
    return counted_in(files.join(folder, FOLDERS[stage]), stage)


def counted_in(output: str, stage: str) -> dict[str, Any]:
    """The same, of the folder of the stage.

    Raises:
        DataError: if its files do not say it.
    """
    try:
        return _counted(output, stage)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{output}: does not say what it holds ({type(error).__name__}: {error}); it was altered. Restore it or "
            "make it again."
        ) from error


def _counted(output: str, stage: str) -> dict[str, Any]:
    if stage == "pretrain":
        metrics = files.read_json(files.join(output, "metrics.json"))
        recall = metrics["valid"]["text_to_protein"]["recall@10"]
        return {"steps": metrics["steps"], "best_epoch": metrics["best_epoch"], "recall@10": round(recall, 4)}
    manifest = files.read_json(files.join(output, FILE_NAME))
    if stage == "curate":
        return {"pairs": sum(manifest["splits"].values()), "quarantined": manifest["counts"]["quarantined"]}
    if stage == "evaluate":
        results = files.read_json(files.join(output, "report.json"))
        return {"models": len(results["models"]), "tasks": len(results["tasks"])}
    return {key: manifest[key] for key in _KEYS[stage]}
