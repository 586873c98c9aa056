"""safetensors files, one or several shards, written and read a tensor at a time.

The layout is that of the safetensors library: 8 bytes with the header's length, the header as JSON, then the tensors'
bytes. Names of shards and their index are HuggingFace's: ``model-00001-of-00003.safetensors`` and
``model.safetensors.index.json``.
"""

from __future__ import annotations

import contextlib
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from protclip import files
from protclip.checked import checked
from protclip.errors import CheckpointError, DataError
from protclip.manifest import path_inside

MAX_SHARD_BYTES = 5_000_000_000
"""HuggingFace's default, "5GB"."""

DTYPES: dict[torch.dtype, str] = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""safetensors' names of the types that checkpoints hold, in the order in which the library lays them out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _ShardIndex:
    weight_map: dict[str, str]
    """Name of a tensor → its file."""


def write_tensors(path: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write one safetensors file, atomically, without a copy of the tensors: the library's own bytes."""
    # The widest types first keeps every tensor aligned; then names, so that equal contents are equal files.
    rank = {dtype: i for i, dtype in enumerate(DTYPES)}
    order = sorted(tensors, key=lambda name: (rank[tensors[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    end = 0
    for name in order:
        tensor = tensors[name]
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with files.atomic_write(path) as stream:
        write_header(stream, text)
        for name in order:
            write_data(stream, tensors[name])


def write_header(stream: IO[bytes], header: bytes) -> None:
    """Write the length of the header and the header."""
    stream.write(struct.pack("<Q", len(header)))
    stream.write(header)


def write_data(stream: IO[bytes], tensor: Tensor) -> None:
    """Write a tensor's bytes."""
    stream.write(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def read_header(path: str) -> bytes:
    """The header of a file that ``open_tensors`` has opened before, as it stands there."""
    with files.open_regular(path) as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        return stream.read(length)


@contextlib.contextmanager
def open_tensors(path: str) -> Iterator[Any]:
    """A reader with ``keys()``, ``get_tensor(name)`` and ``metadata()`` that holds no tensor in memory.

    Raises:
        CheckpointError: if the file is missing, is no safetensors file, or is cut short.
    """
    if not files.exists(path):
        raise CheckpointError(f"{path}: is missing; restore it, or check the path.")
    try:
        files.open_regular(path).close()
    except DataError as error:
        raise CheckpointError(str(error)) from error
    with files.local_copy(path) as local:
        try:
            reader = safe_open(local, framework="pt")
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: is not a whole safetensors file ({error}).") from error
        with reader as opened:
            yield opened


def load_tensors(path: str) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: if it is missing, is not one, or is cut short.
    """
    with open_tensors(path) as reader:
        names = reader.keys()
        return {name: reader.get_tensor(name) for name in names}


def save_weights(folder: str, tensors: Mapping[str, Tensor], *, max_shard_bytes: int = MAX_SHARD_BYTES) -> list[str]:
    """Write ``model.safetensors``, or shards and their index where it would be larger; returns the file names.

    A tensor above the size is a shard of its own. Weights that the folder held before are removed.
    """
    shards = split_into_shards(tensors, max_shard_bytes)
    if len(shards) == 1:
        names = ["model.safetensors"]
    else:
        names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    _remove_weights(folder)
    for name, keys in zip(names, shards, strict=True):
        write_tensors(files.join(folder, name), {key: tensors[key] for key in keys})
    if len(shards) == 1:
        return names
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": {key: name for name, keys in zip(names, shards, strict=True) for key in keys},
    }
    files.write_json(files.join(folder, "model.safetensors.index.json"), index)
    return [*names, "model.safetensors.index.json"]


def split_into_shards(tensors: Mapping[str, Tensor], max_shard_bytes: int) -> list[list[str]]:
    """Names of the tensors of each shard, in their order, each shard as full as it can be."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.nbytes
    return shards


@contextlib.contextmanager
def open_weights(path: str) -> Iterator[dict[str, Any]]:
    """The reader of each tensor's file, by the tensor's name.

    Args:
        path: ``…/model.safetensors``; where there is none, the shards that ``…/model.safetensors.index.json`` names.

    Raises:
        CheckpointError: if a file is missing, damaged, or lacks what the index places in it.
    """
    index_path = f"{path}.index.json"
    with contextlib.ExitStack() as stack:
        if files.exists(path) or not files.exists(index_path):
            reader = stack.enter_context(open_tensors(path))
            yield dict.fromkeys(reader.keys(), reader)
            return
        try:
            places = checked(_ShardIndex, files.read_json(index_path), index_path).weight_map
        except DataError as error:
            raise CheckpointError(str(error)) from error
        folder = path.rpartition("/")[0]
        paths = {name: path_inside(folder, name, error=CheckpointError) for name in set(places.values())}
        readers = {name: stack.enter_context(open_tensors(shard)) for name, shard in paths.items()}
        held = {name: set(reader.keys()) for name, reader in readers.items()}
        if lost := sorted(key for key, name in places.items() if key not in held[name]):
            raise CheckpointError(f"{index_path}: places {lost[0]} in {places[lost[0]]}, which lacks it.")
        yield {key: readers[name] for key, name in places.items()}


def _remove_weights(folder: str) -> None:
    fs, inner = files.filesystem(folder)
    if not fs.isdir(inner):
        return
    for path in fs.ls(inner, detail=False):
        name = path.rstrip("/").rpartition("/")[2]
        if re.fullmatch(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json", name):
            files.remove(files.join(folder, name))
