"""safetensors files and shards, as the library and HuggingFace write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import tiny_model

from protclip import ProtCLIP
from protclip.errors import CheckpointError
from protclip.model.tensors import DTYPES, open_weights, save_weights, split_into_shards, write_tensors
from protclip.model.weights import load_weights

pytestmark = pytest.mark.unit


def test_a_file_has_the_library_s_own_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {f"{i}.é": (torch.rand(3, 5) * 100).to(dtype) for i, dtype in enumerate(DTYPES)}
    tensors |= {"scalar": torch.tensor(1.5), "none": torch.zeros(0, 3), "turned": torch.rand(2, 3).T}
    write_tensors(str(tmp_path / "ours"), tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "theirs", {"format": "pt"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_shards_are_full_but_not_over_and_a_large_tensor_stands_alone() -> None:
    tensors = {name: torch.zeros(size, dtype=torch.uint8) for name, size in [("a", 4), ("b", 6), ("c", 11), ("d", 1)]}
    assert split_into_shards(tensors, 10) == [["a", "b"], ["c"], ["d"]]
    assert split_into_shards(tensors, 22) == [["a", "b", "c", "d"]]


def test_a_sharded_model_is_named_as_huggingface_s_and_loads_the_same(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(str(tmp_path), max_shard_bytes=20_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in tmp_path.glob("model-*.safetensors"))
    assert shards == [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    assert len(shards) > 2
    assert not (tmp_path / "model.safetensors").exists()
    state = model.model.state_dict()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in state.values())
    assert {name: shard for shard in shards for name in load_file(tmp_path / shard)} == index["weight_map"]
    assert set(index["weight_map"]) == set(state)
    assert {*shards, "model.safetensors.index.json"} <= set(
        json.loads((tmp_path / "manifest.json").read_text())["files"]
    )
    again = ProtCLIP.from_pretrained(str(tmp_path))
    assert again.fingerprint == model.fingerprint
    assert np.array_equal(again.embed_proteins(["MKTAYIAK"]), model.embed_proteins(["MKTAYIAK"]))


@pytest.mark.parametrize("folder", ["plain", "memory://tensors/plain"])
def test_weights_saved_again_leave_nothing_of_the_former_behind(tmp_path: Path, folder: str) -> None:
    folder = folder if "://" in folder else str(tmp_path / folder)
    first, second = {"a": torch.zeros(4), "b": torch.zeros(4)}, {"a": torch.ones(4), "b": torch.ones(4)}
    for tensors, size in [(first, 100), (second, 16), (first, 8), (second, 100)]:
        save_weights(folder, tensors, max_shard_bytes=size)
        with open_weights(f"{folder}/model.safetensors") as readers:
            assert all(torch.equal(readers[name].get_tensor(name), tensors[name]) for name in ("a", "b"))


def test_a_missing_or_wrong_shard_is_refused_by_name(tmp_path: Path) -> None:
    model = tiny_model()
    model.save_pretrained(str(tmp_path), max_shard_bytes=20_000)
    path, shard = str(tmp_path / "model.safetensors"), tmp_path / "model-00002-of-00003.safetensors"
    assert len(list(tmp_path.glob("model-*"))) == 3
    lost = sorted(load_file(shard))[0]
    save_file({"other": torch.zeros(1)}, shard)
    with pytest.raises(CheckpointError, match=rf"index\.json: places {lost} in {shard.name}, which lacks it"):
        load_weights(model.model, path)
    shard.unlink()
    with pytest.raises(CheckpointError, match=rf"{shard.name}: is missing"):
        load_weights(model.model, path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match="weight_map is missing"):
        load_weights(model.model, path)
