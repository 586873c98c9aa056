"""The published model, written straight from the paper and its checkpoint's names, and its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel, EsmConfig, EsmModel

PROTEIN = {
    "vocab_size": 33,
    "mask_token_id": 32,
    "pad_token_id": 1,
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 1026,
    "position_embedding_type": "rotary",
    "token_dropout": True,
    "emb_layer_norm_before": False,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-5,
}
TEXT = {
    "vocab_size": 120,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 512,
}
DIM = 24


class Linears(nn.Module):
    """Linear layers by name, all of one width."""

    def __init__(self, dim: int, *names: str) -> None:
        super().__init__()
        for name in names:
            setattr(self, name, nn.Linear(dim, dim))


class OfficialModel(nn.Module):
    """Names as in the published file; the forward pass for one unpadded sequence."""

    def __init__(self, protein: dict[str, Any] = PROTEIN, text: dict[str, Any] = TEXT, dim: int = DIM) -> None:
        super().__init__()
        self.fields = {"protein": protein, "text": text}
        hidden, vocabulary = protein["hidden_size"], protein["vocab_size"]

        def projection(width: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, dim))

        def head(width: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.LayerNorm(dim), nn.Linear(dim, vocabulary))

        self.protein_model = EsmModel(EsmConfig(**protein))
        self.text_model = BertModel(BertConfig(**text))
        self.protein_projection, self.text_projection = projection(hidden), projection(text["hidden_size"])
        self.logit_scale = nn.Parameter(torch.tensor(2.75))
        self.mlm_head, self.t2p_mlm_head = head(hidden), head(dim)
        self.decoder = Linears(dim, "query", "key", "value")
        self.proto_bank = nn.ModuleDict({"prototype": nn.Embedding(dim, dim)})
        self.local_cross_attention = Linears(dim, "query1", "key1", "value1", "query2", "key2", "value2")
        self.local_logit_scale = nn.Parameter(torch.tensor([2.25, 2.5]))
        self.predictor = nn.Sequential(nn.Linear(dim, dim // 2), nn.ReLU(), nn.Linear(dim // 2, dim))

    def embed(self, side: str, ids: list[int]) -> Tensor:
        """Mean over all tokens, projected, divided by its length."""
        hidden = getattr(self, f"{side}_model")(input_ids=torch.tensor([ids])).last_hidden_state
        vector: Tensor = getattr(self, f"{side}_projection")(hidden.mean(dim=1))[0]
        return vector / vector.norm()  # type: ignore[no-any-return]

    def published_tensors(self) -> dict[str, Tensor]:
        """All tensors by their published names: a copy of inv_freq in each layer, and ESM-2's unused positions."""
        tensors = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        inv_freq = tensors.pop("protein_model.rotary_embeddings.inv_freq")
        fields = self.fields["protein"]
        for i in range(fields["num_hidden_layers"]):
            name = f"protein_model.encoder.layer.{i}.attention.self.rotary_embeddings.inv_freq"
            tensors[name] = inv_freq.clone()
        shape = (fields["max_position_embeddings"], fields["hidden_size"])
        tensors["protein_model.embeddings.position_embeddings.weight"] = torch.zeros(shape, device=inv_freq.device)
        return tensors

    def config(self) -> dict[str, Any]:
        """config.json, with fields of old libraries that today's do not know."""
        old = {"pruned_heads": {}, "torch_dtype": "float32", "top_k": 50, "_name_or_path": "/somewhere/else"}
        return {
            "architectures": ["FSTForPretrain"],
            "model_type": "FST",
            "projection_dim": self.logit_dim(),
            "proto_num": self.logit_dim(),
            "proto_dim": self.logit_dim(),
            "local_contrast": 1,
            "t2p_mlm": 1,
            "mmp": 0,
            "protein_model_config": {**old, **self.fields["protein"], "model_type": "esm"},
            "text_model_config": {
                **old,
                **self.fields["text"],
                "model_type": "bert",
                "position_embedding_type": "absolute",
            },
            "torch_dtype": "float16",
        }

    def logit_dim(self) -> int:
        """Width of the common space."""
        first = self.protein_projection[0]
        assert isinstance(first, nn.Linear)
        return first.out_features


def official_model(seed: int = 0, *, dtype: torch.dtype = torch.float32) -> OfficialModel:
    """A tiny published model with random weights, rounded to the type, computing in fp32 as the published code does."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = OfficialModel()
        for parameter in model.parameters():
            if parameter.ndim:
                torch.nn.init.normal_(parameter, std=0.2)
    return model.to(dtype).float().eval()


def write_official(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], dtype: torch.dtype) -> Path:
    """The published folder; its JSON is written as transformers does, not as we do."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    stored = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
