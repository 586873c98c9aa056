"""``import protclip.auto`` makes checkpoint folders known to transformers' ``AutoConfig`` and ``AutoModel``.

No code is taken from the folder. Shapes: B items of a batch, L tokens, H hidden width of an encoder, D width of the
embedding.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import ModelOutput
from transformers.utils.hub import convert_file_size_to_int

from protclip.checkpoints import checkpoint_folder
from protclip.errors import ConfigError, ProtclipError
from protclip.model.checkpoint import MODEL_TYPE, load_tokenizers, read_architecture, save_checkpoint
from protclip.model.dual_encoder import DualEncoder, scale
from protclip.model.encoders import Kind
from protclip.model.packed import pack
from protclip.model.tensors import MAX_SHARD_BYTES
from protclip.trained_model import ProtCLIP


class ProtCLIPConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """config.json of a checkpoint folder; its fields are explained by ``Architecture``."""

    model_type = MODEL_TYPE

    protein_encoder: dict[str, Any] = field(default_factory=dict)
    text_encoder: dict[str, Any] = field(default_factory=dict)
    projection_dim: int = 512
    max_protein_tokens: int = 1024
    max_text_tokens: int = 512
    objectives: dict[str, Any] | None = None
    attention: str = "packed"


@dataclass
class ProtCLIPOutput(ModelOutput):
    """What ``ProtCLIPModel`` gives; None where one side was not given."""

    logits: Tensor | None = None
    """exp(logit_scale) · cosine, (number of proteins, number of texts)."""
    protein_embeds: Tensor | None = None
    """(B, D), of unit length; likewise the texts'."""
    text_embeds: Tensor | None = None


class ProtCLIPModel(PreTrainedModel):
    """The dual encoder as transformers' models are called; ``network`` is ours, with the weights."""

    config_class = ProtCLIPConfig
    base_model_prefix = "network"
    main_input_name = "protein_input_ids"

    def __init__(self, config: ProtCLIPConfig) -> None:
        super().__init__(config)
        self.network = DualEncoder(read_architecture(config.to_dict()))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        protein_input_ids: Tensor | None = None,
        protein_attention_mask: Tensor | None = None,
        text_input_ids: Tensor | None = None,
        text_attention_mask: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> ProtCLIPOutput | tuple[Tensor, ...]:
        """Embeddings of the sides that are given, and of both the logits.

        Args:
            protein_input_ids: (B, L) of ``AutoTokenizer.from_pretrained("FOLDER/protein_tokenizer")``.
            protein_attention_mask: 0 at padding; None: there is none where the ids have no padding token.
            text_input_ids: (B, L) of ``AutoTokenizer.from_pretrained("FOLDER/text_tokenizer")``.
            text_attention_mask: likewise.
            return_dict: False gives a tuple without what is None.
        """
        protein_BD = text_BD = logits = None
        if protein_input_ids is not None:
            features = self.get_protein_features(protein_input_ids, protein_attention_mask)
            protein_BD = normalize(features["pooler_output"], dim=-1)
        if text_input_ids is not None:
            features = self.get_text_features(text_input_ids, text_attention_mask)
            text_BD = normalize(features["pooler_output"], dim=-1)
        if protein_BD is not None and text_BD is not None:
            logits = scale(self.network.logit_scale) * (protein_BD @ text_BD.T)
        output = ProtCLIPOutput(logits=logits, protein_embeds=protein_BD, text_embeds=text_BD)
        return output.to_tuple() if return_dict is False else output

    def get_protein_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        """``last_hidden_state`` (B, L, H), zero at padding, and ``pooler_output`` (B, D): projected, not normalised."""
        return self._features("protein", input_ids, attention_mask)

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutputWithPooling:
        """As ``get_protein_features``, of texts."""
        return self._features("text", input_ids, attention_mask)

    def to_protclip(self) -> ProtCLIP:
        """The same network as ``ProtCLIP``, with the tokenizers of the folder that this model was loaded from.

        Raises:
            ConfigError: if it was not loaded from one, or that is gone.
        """
        architecture = self.network.architecture
        try:
            tokenizers = load_tokenizers(checkpoint_folder(str(self.name_or_path)), architecture)
        except ProtclipError as error:
            raise ConfigError(
                f"the tokenizers cannot be had from name_or_path={str(self.name_or_path)!r}, where the model was "
                f"loaded from ({error}); load a checkpoint folder, or make a ProtCLIP of model.network and your own."
            ) from error
        return ProtCLIP(self.network, *tokenizers, device=self.device)

    def save_pretrained(  # type: ignore[override]  # fewer arguments: our folder has one form
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        max_shard_size: int | str = MAX_SHARD_BYTES,
    ) -> None:
        """Write a whole checkpoint folder, as ``ProtCLIP.save_pretrained`` does: both classes read it.

        Args:
            save_directory: the folder.
            is_main_process: where False, nothing is written.
            state_dict: weights in place of the model's own.
            max_shard_size: bytes, or such as "5GB"; weights beyond it are written as several files.

        Raises:
            ConfigError: as ``to_protclip``.
        """
        if not is_main_process:
            return
        model = self.to_protclip()
        prefix = f"{self.base_model_prefix}."
        weights = state_dict and {name.removeprefix(prefix): tensor for name, tensor in state_dict.items()}
        save_checkpoint(
            os.fspath(save_directory),
            model.model,
            model.protein_tokenizer,
            model.text_tokenizer,
            weights=weights,
            max_shard_bytes=convert_file_size_to_int(max_shard_size),
        )

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:  # type: ignore[override]
        """As ``ProtCLIP.push_to_hub``."""
        return self.to_protclip().push_to_hub(repo_id, **kwargs)

    def _features(self, kind: Kind, ids_BL: Tensor, mask_BL: Tensor | None) -> BaseModelOutputWithPooling:
        if mask_BL is None:
            architecture = self.network.architecture
            mask_BL = ids_BL != (architecture.protein if kind == "protein" else architecture.text).pad_token_id
        mask_BL = mask_BL.bool()
        ids_T, packing = pack([(ids_BL, mask_BL)])
        hidden_TH = self.network.hidden(kind, ids_T, packing)
        hidden_BLH = hidden_TH.new_zeros(*ids_BL.shape, hidden_TH.shape[-1]).index_put((mask_BL,), hidden_TH)
        pooled_BD = self.network.project_mean(kind, hidden_TH, packing)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_BLH, pooler_output=pooled_BD)


AutoConfig.register(MODEL_TYPE, ProtCLIPConfig, exist_ok=True)
AutoModel.register(ProtCLIPConfig, ProtCLIPModel, exist_ok=True)
