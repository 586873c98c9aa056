"""manifest.json: what a finished folder of pairs, embeddings, index or checkpoint holds.

It is written last, so that a folder without one is unfinished. It names the kind of folder, the version of its
format, every file with size and SHA-256, and whatever the kind itself records.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from protclip import files, occupied
from protclip.checked import Count, Sha256, checked
from protclip.errors import ConfigError, DataError, OtherRunError, ProtclipError
from protclip.foreign import HEAD_BYTES, foreign_kind
from protclip.units import TOTAL
from protclip.version import __version__

FILE_NAME = "manifest.json"
SCHEMA_VERSION = 1
WORK_FOLDER = ".work"
CLAIM_FILE = "claim.json"
_KINDS = {
    "pairs": "a folder of pairs (made by curate)",
    "checkpoint": "a checkpoint (made by pretrain)",
    "embeddings": "a folder of embeddings (made by embed)",
    "index": "an index (made by index)",
}
_DIGEST = re.compile("[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """What a manifest says of a file."""

    bytes: Count
    sha256: Sha256


def claim_folder(folder: str, own_files: Sequence[str], *, overwrite: bool) -> None:
    """Make an output folder, without what an unfinished run left in it.

    Args:
        folder: path or URL.
        own_files: patterns of the names that such a folder holds, in the order in which they are removed; nothing else
            is ever removed.
        overwrite: also clear a finished folder.

    Raises:
        ConfigError: if it cannot be made, is finished and ``overwrite`` is not set, or holds other files.
    """
    _refuse_finished(folder, overwrite)
    names = _own_names(folder, own_files)
    # Without its manifest it is unfinished, and without its claim nothing of it is gone on with, whatever is left.
    files.remove(files.join(folder, FILE_NAME))
    files.remove(files.join(folder, WORK_FOLDER, CLAIM_FILE))
    order = [WORK_FOLDER, *own_files, "*"]
    for name in sorted(
        names, key=lambda name: next(i for i, own in enumerate(order) if fnmatch.fnmatchcase(name, own))
    ):
        files.remove(files.join(folder, name))


def resume_folder(folder: str, own_files: Sequence[str], claim: Mapping[str, Any], *, overwrite: bool) -> str:
    """Take up an output folder where an unfinished run of the same claim left it, or make it.

    Args:
        folder: path or URL.
        own_files: patterns of the names that such a folder holds; nothing else is ever removed.
        claim: all that decides on the outcome, as JSON values.
        overwrite: clear the folder and start again.

    Returns:
        The folder for what units of work leave on the way, another one for another claim; it lies in WORK_FOLDER, which
        ``finish_folder`` removes.

    Raises:
        ConfigError: as ``claim_folder``.
        OtherRunError: if an unfinished run of another claim has left results.
    """
    if files.exists(files.join(folder, FILE_NAME)) and not overwrite:
        files.remove(files.join(folder, WORK_FOLDER))  # a run that was killed in its last moment left it
    path = files.join(folder, WORK_FOLDER, CLAIM_FILE)
    text = json.dumps(claim, sort_keys=True)
    if overwrite or not files.exists(path):
        claim_folder(folder, [*own_files, WORK_FOLDER], overwrite=overwrite)
        files.write_json(path, claim)
    else:
        _refuse_finished(folder, overwrite)
        names = _own_names(folder, [*own_files, WORK_FOLDER])
        if found := _changes(files.read_json(path), json.loads(text)):
            if has_results(folder):
                raise OtherRunError(
                    f"output {folder} holds part of a run that differs from this one: {'; '.join(found)}. Run that one "
                    "again, choose another folder, or give --overwrite to start again."
                )
            files.write_json(path, claim)
        for name in names:
            if name.endswith(".tmp"):
                files.remove(files.join(folder, name))
    return work_folder(folder, claim)


def work_folder(folder: str, claim: Any) -> str:
    """The folder of the units of a run with this claim.

    Should a worker of a killed run outlive it, it does not write among the units of another one.
    """
    text = json.dumps(claim, sort_keys=True)
    return files.join(folder, WORK_FOLDER, hashlib.sha256(text.encode()).hexdigest()[:16])


def read_claim(folder: str) -> Any:
    """The claim of the unfinished run that ``resume_folder`` would take up; None where there is none."""
    path = files.join(folder, WORK_FOLDER, CLAIM_FILE)
    return None if files.exists(files.join(folder, FILE_NAME)) or not files.exists(path) else files.read_json(path)


def finish_folder(folder: str) -> None:
    """Remove what the units of work left on the way; the manifest is written."""
    files.remove(files.join(folder, WORK_FOLDER))


def describe(path: str) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"bytes": files.size(path), "sha256": files.sha256(path)}


def write_manifest(
    folder: str,
    kind: str,
    names: Sequence[str],
    *,
    described: Mapping[str, Mapping[str, Any]] | None = None,
    **body: Any,
) -> dict[str, Any]:
    """Commit a folder: checksum the named files and write ``manifest.json`` over them.

    Args:
        folder: path or URL; the files are already there.
        kind: ``pairs``, ``embeddings``, ``index`` or ``checkpoint``.
        names: the files that belong to it, relative to the folder.
        described: further ones, with what ``describe`` said of each where it was written.
        body: what the kind records besides, as JSON values.
    """
    manifest = {
        "kind": kind,
        "schema_version": SCHEMA_VERSION,
        "software": f"protclip {__version__}",
        "files": {**(described or {}), **{name: describe(files.join(folder, name)) for name in names}},
        **body,
    }
    files.write_json(files.join(folder, FILE_NAME), manifest)
    return manifest


def read_manifest(
    folder: str,
    kind: str,
    *,
    verify: bool = False,
    names: Collection[str] | None = None,
    error: type[ProtclipError] = DataError,
) -> dict[str, Any]:
    """Read and check the manifest of a finished folder.

    Args:
        folder: path or URL.
        kind: the kind that the caller can use.
        verify: compare every file's SHA-256 too, not its presence and size alone.
        names: of the files that are looked at, where the caller reads these alone; None for all.
        error: the class to raise.

    Raises:
        ProtclipError: of the given class, if the folder is unfinished, of another kind or version, or a file is
            missing, cut short or altered.
    """
    path = files.join(folder, FILE_NAME)
    if not files.exists(path):
        raise error(f"{folder}: {what_is_there(folder)}; {_KINDS[kind]} is needed here.")
    try:
        manifest: dict[str, Any] = files.read_json(path)
    except DataError as cause:
        raise error(f"{cause} The folder is damaged: restore it or make it again.") from cause
    if not isinstance(manifest, dict):
        raise error(f"{path}: is not a manifest; make the folder again.")
    if manifest.get("kind") != kind:
        raise error(f"{folder}: is {kind_of_folder(manifest)}, and {_KINDS[kind]} is needed here.")
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise error(
            f"{folder}: format version {manifest.get('schema_version')!r:.60}, this software reads {SCHEMA_VERSION}; "
            "make the folder again, or use the version that wrote it."
        )
    records = checked(dict[str, FileRecord], manifest.get("files"), f"{path}, files", error=error)
    if names is not None:
        records = {name: record for name, record in records.items() if name in names}
    # All names and sizes before the first byte is read.
    files.in_threads(lambda name: _check_size(folder, name, records[name].bytes, error), records)
    if verify:
        files.in_threads(lambda name: _check_digest(files.join(folder, name), records[name].sha256, error), records)
    return manifest


def path_inside(folder: str, name: Any, *, error: type[ProtclipError] = DataError) -> str:
    """The path of a file that another file of the folder names.

    A name is a plain one, or has one folder before it. What lies on this machine is a regular file in that very folder,
    if it is there at all: no device, no pipe, and no symbolic link that leads out.

    Raises:
        ProtclipError: of the given class.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise error(
            f"{folder}: names {name!r:.80} as one of its files; allowed are letters, digits and ._+- with one / at "
            "most. The folder was altered: restore it or make it again."
        )
    path = files.join(folder, name)
    fs, inner = files.filesystem(path)
    if isinstance(fs, LocalFileSystem):
        real, root = os.path.realpath(inner), os.path.realpath(files.filesystem(folder)[1])
        if os.path.commonpath([real, root]) != root:
            raise error(f"{path}: is a link to {real}, outside of its folder; put the file itself there.")
        if os.path.exists(real) and not stat.S_ISREG(os.stat(real).st_mode):
            raise error(f"{path}: is no regular file, but a folder, device or pipe; restore it or make it again.")
    return path


def kind_of_folder(manifest: Any) -> str:
    """What a manifest's folder is, for messages."""
    kind = manifest.get("kind") if isinstance(manifest, dict) else None
    return _KINDS.get(str(kind), f"a folder of another kind ({kind!r:.40})")


def what_is_there(path: str) -> str:
    """What stands at a path instead of a finished folder, to follow the path and a colon."""
    if not files.exists(path):
        return "is missing"
    if not files.is_folder(path):
        with files.open_regular(path) as stream:
            what = foreign_kind(stream.read(HEAD_BYTES))
        return f"is {what}" if what else "is a file"
    names = files.list_folder(path)
    if WORK_FOLDER in names:
        return "is unfinished: run the command that makes it again, and it goes on where it was"
    finished = [name for name in names if files.exists(files.join(path, name, FILE_NAME))]
    if finished:
        return f"is no finished folder itself but holds such ({', '.join(finished[:5])})"
    return "has no manifest.json: it is unfinished or not ours"


def _refuse_finished(folder: str, overwrite: bool) -> None:
    if files.exists(files.join(folder, FILE_NAME)) and not overwrite:
        raise ConfigError(f"output {folder} is already finished; choose another folder, or give --overwrite.")


def _own_names(folder: str, own_files: Sequence[str]) -> list[str]:
    """What a folder holds; it is made where it is missing, and refused where it holds anything foreign."""
    files.make_folder(folder)
    names = files.list_folder(folder)
    names = [name for name in names if name != occupied.FILE_NAME]
    patterns = [*own_files, FILE_NAME, "*.tmp"]
    if foreign := [name for name in names if not any(fnmatch.fnmatchcase(name, own) for own in patterns)]:
        raise ConfigError(f"output {folder} holds other files ({', '.join(foreign[:3])} …); choose an empty folder.")
    return names


def has_results(folder: str) -> bool:
    """Whether an unfinished run left more in its folder than its claim."""
    names = files.list_folder(folder)
    if any(name not in (WORK_FOLDER, occupied.FILE_NAME) and not name.endswith(".tmp") for name in names):
        return True
    fs, inner = files.filesystem(files.join(folder, WORK_FOLDER))
    return any(not name.endswith((f"/{CLAIM_FILE}", ".tmp", TOTAL)) for name in fs.find(inner))


def _changes(there: Any, here: Any, *keys: str) -> list[str]:
    """Where two claims differ, in words."""
    if there == here:
        return []
    if isinstance(there, dict | None) and isinstance(here, dict | None):
        there, here = there or {}, here or {}
        names = sorted({*there, *here})
        return [change for name in names for change in _changes(there.get(name), here.get(name), *keys, name)]
    paths = [key for key in keys[-1:] if "/" in key]
    what = paths[0] if paths else ".".join(keys)
    # The mark of a file, or a checksum, says nothing to people.
    if paths or any(isinstance(value, str) and _DIGEST.fullmatch(value) for value in (there, here)):
        return [f"{what} {'is new' if there is None else 'is no longer given' if here is None else 'has changed'}"]
    return [f"{what}: {there} there, {here} here"]


def differences(there: Any, here: Any, place: str = "") -> list[str]:
    """Where two JSON values differ, as ``seed: 0 there, 1 here``."""
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            difference
            for key in sorted({*there, *here})
            for difference in differences(there.get(key), here.get(key), f"{place}.{key}" if place else key)
        ]
    return [] if there == here else [f"{place}: {there} there, {here} here"]


def _check_size(folder: str, name: str, num_bytes: int, error: type[ProtclipError]) -> None:
    path = path_inside(folder, name, error=error)
    if not files.exists(path):
        raise error(f"{path}: is missing, though the manifest lists it; restore it or make the folder again.")
    if (found := files.size(path)) != num_bytes:
        raise error(f"{path}: has {found} bytes, the manifest says {num_bytes}; restore it or make it again.")


def _check_digest(path: str, digest: str, error: type[ProtclipError]) -> None:
    if files.sha256(path) != digest:
        raise error(f"{path}: its SHA-256 is not the manifest's; the file was altered. Restore it or make it again.")
