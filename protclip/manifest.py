"""manifest.json: what a finished folder of pairs, embeddings, index or checkpoint holds.

It is written last, so that a folder without one is unfinished. It names the kind of folder, the version of its
format, every file with size and SHA-256, and whatever the kind itself records.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

from protclip import files
from protclip.errors import ConfigError, DataError, ProtclipError
from protclip.version import __version__

FILE_NAME = "manifest.json"
SCHEMA_VERSION = 1


def claim_folder(folder: str, own_files: Sequence[str], *, overwrite: bool) -> None:
    """Make an output folder, without what an unfinished run left in it.

    Args:
        folder: path or URL.
        own_files: patterns of the names that such a folder holds; nothing else is ever removed.
        overwrite: also clear a finished folder.

    Raises:
        ConfigError: if it cannot be made, is finished and ``overwrite`` is not set, or holds other files.
    """
    if files.exists(files.join(folder, FILE_NAME)) and not overwrite:
        raise ConfigError(f"output {folder} is already finished; choose another folder, or give --overwrite.")
    files.make_folder(folder)
    fs, inner = files.filesystem(folder)
    names = sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(inner, detail=False))
    patterns = [*own_files, FILE_NAME, "*.tmp"]
    if foreign := [name for name in names if not any(fnmatch.fnmatchcase(name, own) for own in patterns)]:
        raise ConfigError(f"output {folder} holds other files ({', '.join(foreign[:3])} …); choose an empty folder.")
    for name in sorted(names, key=lambda name: name != FILE_NAME):  # the manifest first: from then on it is unfinished
        files.remove(files.join(folder, name))


def write_manifest(folder: str, kind: str, names: Sequence[str], **body: Any) -> dict[str, Any]:
    """Commit a folder: checksum the named files and write ``manifest.json`` over them.

    Args:
        folder: path or URL; the files are already there.
        kind: ``pairs``, ``embeddings``, ``index`` or ``checkpoint``.
        names: the files that belong to it, relative to the folder.
        body: what the kind records besides, as JSON values.
    """
    manifest = {
        "kind": kind,
        "schema_version": SCHEMA_VERSION,
        "software": f"protclip {__version__}",
        "files": {
            name: {"bytes": files.size(files.join(folder, name)), "sha256": files.sha256(files.join(folder, name))}
            for name in sorted(names)
        },
        **body,
    }
    files.write_json(files.join(folder, FILE_NAME), manifest)
    return manifest


def read_manifest(
    folder: str, kind: str, *, verify: bool = False, error: type[ProtclipError] = DataError
) -> dict[str, Any]:
    """Read and check the manifest of a finished folder.

    Args:
        folder: path or URL.
        kind: the kind that the caller can use.
        verify: compare every file's SHA-256 too, not its presence and size alone.
        error: the class to raise.

    Raises:
        ProtclipError: of the given class, if the folder is unfinished, of another kind or version, or a file is
            missing, cut short or altered.
    """
    path = files.join(folder, FILE_NAME)
    if not files.exists(path):
        state = (
            "exists but has no manifest.json: it is unfinished or not ours" if files.exists(folder) else "is missing"
        )
        raise error(f"{folder}: {state}; a finished folder of this kind ({kind}) has one. Check the path.")
    try:
        manifest: dict[str, Any] = files.read_json(path)
    except DataError as cause:
        raise error(f"{cause} The folder is damaged: restore it or make it again.") from cause
    if not isinstance(manifest, dict):
        raise error(f"{path}: is not a manifest; make the folder again.")
    if manifest.get("kind") != kind:
        raise error(f"{folder}: its kind is {manifest.get('kind')!r}, but {kind!r} is needed here.")
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise error(
            f"{folder}: format version {manifest.get('schema_version')!r}, this software reads {SCHEMA_VERSION}; "
            "make the folder again, or use the version that wrote it."
        )
    try:
        entries = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as cause:
        raise error(f"{path}: its list of files is damaged; make the folder again.") from cause
    for name, (num_bytes, digest) in entries.items():
        _check_file(files.join(folder, name), num_bytes, digest if verify else None, error)
    return manifest


def _check_file(path: str, num_bytes: int, digest: str | None, error: type[ProtclipError]) -> None:
    if not files.exists(path):
        raise error(f"{path}: is missing, though the manifest lists it; restore it or make the folder again.")
    if (found := files.size(path)) != num_bytes:
        raise error(f"{path}: has {found} bytes, the manifest says {num_bytes}; restore it or make it again.")
    if digest is not None and files.sha256(path) != digest:
        raise error(f"{path}: its SHA-256 is not the manifest's; the file was altered. Restore it or make it again.")
