"""``ProtCLIP``: a trained model with its tokenizers, its folder, and what it can be asked.

It has the methods of ``Embedder``, which make embeddings, and those by which sentence-transformers asks.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from protclip.data.tokenize import ProteinTokenizer, TextTokenizer
from protclip.errors import ConfigError
from protclip.explanation import WINDOW, has_prototypes, occlusion, segments
from protclip.inputs import Dtype, check_one_of
from protclip.model.checkpoint import architecture_fields, load_checkpoint, save_checkpoint, save_encoder
from protclip.model.dual_encoder import DualEncoder
from protclip.model.encoders import Kind
from protclip.model.tensors import MAX_SHARD_BYTES
from protclip.model.weights import model_fingerprint
from protclip.sentence_transformers_methods import SentenceTransformersMethods


class ProtCLIP(SentenceTransformersMethods):
    """A dual encoder with its tokenizers. It is for inference; training works on ``DualEncoder``.

    ``Embedder`` has the arguments that its methods share.
    """

    def __init__(
        self,
        model: DualEncoder,
        protein_tokenizer: ProteinTokenizer,
        text_tokenizer: TextTokenizer,
        *,
        fingerprint: str | None = None,
        device: str | torch.device | None = None,
        dtype: Dtype | torch.dtype = "float32",
    ) -> None:
        super().__init__(model, protein_tokenizer, text_tokenizer, device=device, dtype=dtype)
        self._fingerprint = fingerprint

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        *,
        device: str | torch.device | None = None,
        dtype: Dtype | torch.dtype = "float32",
        revision: str | None = None,
    ) -> ProtCLIP:
        """Load a checkpoint folder.

        Args:
            path: a folder, such as ``runs/tiny/best``; ``published``, the authors' own; a name on the HuggingFace hub,
                ``org/name`` or ``org/name@REVISION``; or a URL. What is not a folder is fetched once, into the cache
                (docs/checkpoints.md).
            device: where it computes, as torch names it; None is the CPU.
            dtype: of its matrix products and attention: for queries that of the index (``IndexManifest.dtype``) or
                of the embeddings (``Embeddings.dtype``). "bfloat16" is faster on GPUs, and on processors with
                avx512_bf16 or AMX, and slow on others; embeddings stay fp32 and turn by a cosine of 0.9999 or more.
                The weights, and so the fingerprint, stay as they are.
            revision: branch, tag or commit on the hub; for names on the hub alone, the same as ``@REVISION``.

        Raises:
            CheckpointError: if the folder is unfinished or damaged, or the cached one is not what was fetched.
            ConfigError: for another dtype, a device that is not there, or a name that cannot be fetched.
        """
        from protclip.checkpoints import checkpoint_folder

        checkpoint = load_checkpoint(checkpoint_folder(path, revision=revision))
        return cls(
            checkpoint.model,
            checkpoint.protein_tokenizer,
            checkpoint.text_tokenizer,
            fingerprint=checkpoint.fingerprint,
            device=device,
            dtype=dtype,
        )

    def __repr__(self) -> str:
        known = self._fingerprint
        return (
            f"ProtCLIP({sum(parameter.numel() for parameter in self.model.parameters()):,} parameters, "
            f"dimension={self.dimension}, device={self.device}, dtype={str(self.dtype).removeprefix('torch.')}, "
            f"fingerprint={f'{known[:12]}…' if known else 'not computed'})"
        )

    def save_pretrained(self, path: str, *, max_shard_bytes: int = MAX_SHARD_BYTES, **record: Any) -> None:
        """Write a checkpoint folder that ``from_pretrained`` reads, with a model card.

        Args:
            path: local path or fsspec URL.
            max_shard_bytes: weights beyond it are written as several files.
            record: JSON values to keep in the manifest; ``metrics`` and ``run`` (the settings) are told in the card.
        """
        save_checkpoint(
            path,
            self.model,
            self.protein_tokenizer,
            self.text_tokenizer,
            max_shard_bytes=max_shard_bytes,
            **record,
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a ProtCLIP checkpoint",
        **record: Any,
    ) -> str:
        """Upload what ``save_pretrained`` writes to the HuggingFace hub, and return the commit's URL.

        Args:
            repo_id: ``org/name``; it is made where it is not there.
            private: of a repository that is made.
            token: of the account; None takes that of ``hf auth login``.
            revision: the branch.
            commit_message: likewise.
            record: as for ``save_pretrained``.

        Raises:
            ConfigError: if the hub cannot be reached or refuses.
        """
        from protclip.hub import upload

        return upload(
            lambda folder: self.save_pretrained(folder, **record),
            repo_id,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
        )

    def save_encoder(self, kind: Kind, path: str, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        """Write one trained encoder as a plain HuggingFace folder: configuration, weights, tokenizer.

        ``transformers.EsmModel`` ("protein") or ``BertModel`` ("text") reads it, and its tokenizer ``AutoTokenizer``;
        protclip is not needed there. Give ``add_pooling_layer=False``: poolers are not trained here, nor ESM's contact
        head. The mean of its last hidden states over all tokens is the embedding at ``layer="hidden"``.

        Args:
            kind: "protein" or "text".
            path: local path or fsspec URL.
            max_shard_bytes: weights beyond it are written as several files.

        Raises:
            ConfigError: for another kind.
        """
        check_one_of("kind", kind, ("protein", "text"))
        tokenizer = self.protein_tokenizer if kind == "protein" else self.text_tokenizer
        save_encoder(path, kind, self.model, tokenizer, max_shard_bytes=max_shard_bytes)

    @property
    def fingerprint(self) -> str:
        """SHA-256 hex of all that makes embeddings but the dtype: where both are equal, the embeddings are."""
        if self._fingerprint is None:
            config = architecture_fields(self.model.architecture)
            state = {name: tensor.cpu() for name, tensor in self.model.state_dict().items()}
            self._fingerprint = model_fingerprint(config, self.protein_tokenizer, self.text_tokenizer, state)
        return self._fingerprint

    def explain(
        self,
        sequence: str,
        text: str,
        *,
        method: Literal["occlusion", "segments"] = "occlusion",
        window: int = WINDOW,
        stride: int = 1,
        long: Literal["truncate", "error"] = "truncate",
    ) -> np.ndarray:
        """How much each residue has to do with the match of a protein and a text, (residues,) float32.

        Number i belongs to residue i of the sequence without white space. ``protclip.explanation`` takes many texts of
        one protein for the same passes of the protein encoder.

        Args:
            sequence: in one-letter code.
            text: such as ``FUNCTION: Hydrolyses ATP.``
            method: "occlusion", for every model: the drop of the cosine when a window of residues is masked.
                "segments", for models trained with PDA: the weights, of sum 1, of the text's dynamic segment.
            window: residues that are masked together, an odd number; for occlusion alone.
            stride: residues from one window to the next; for occlusion alone. The passes become fewer by this factor.
            long: as in ``embed_proteins``; a truncated protein has ``max_protein_tokens`` - 2 numbers.

        Raises:
            ConfigError: for an unknown method, a window or stride that cannot be, or "segments" of a model without PDA.
            DataError: as ``embed_proteins`` and ``embed_texts``.
        """
        if method == "occlusion":
            scores_TR = occlusion(self, sequence, [text], window=window, stride=stride, long=long)
        elif method == "segments":
            if not has_prototypes(self):
                raise ConfigError(
                    "method='segments': this checkpoint was trained without PDA (objectives.pda=0), so nothing in it "
                    "learned which residues a text speaks of; method='occlusion' works for every model."
                )
            scores_TR = segments(self, sequence, [text], long=long)
        else:
            raise ConfigError(f"method={method!r}: allowed are 'occlusion', 'segments'.")
        scores_R: np.ndarray = scores_TR[0]
        return scores_R
