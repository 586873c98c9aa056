"""What the validation pairs say of a model, measured by all workers together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.distributed import ProcessGroup

from protclip import distributed, layout
from protclip.data.collate import Batch, identity, ragged
from protclip.data.tokenize import TOKENIZED_COLUMNS, tokenize_pairs
from protclip.losses.total import with_loss
from protclip.metrics.objectives import validation_terms
from protclip.metrics.retrieval import validation_metrics
from protclip.protanno.shards import RowGroup, first_rows
from protclip.trained_model import ProtCLIP

BLOCK = 32
"""Held-out pairs that are measured together, and that PDA contrasts where it does so between proteins."""


class Validation:
    """The validation pairs of a run, and this worker's part of them."""

    def __init__(
        self,
        model: ProtCLIP,
        groups: Iterable[RowGroup],
        *,
        max_pairs: int,
        collate: Callable[[pa.Table], Batch],
        group: ProcessGroup | None,
    ) -> None:
        """Reads and tokenises this worker's pairs.

        Args:
            model: what is trained, with its tokenizers.
            groups: of the validation pairs, the first of which are measured on.
            max_pairs: of all workers together, at most.
            collate: makes a batch of some rows with masks that are the same after each epoch.
            group: the workers, or None for one process.
        """
        self._model, self._collate, self._group = model, collate, group
        rows = pa.concat_tables(first_rows(groups, max_pairs, list(TOKENIZED_COLUMNS)))
        # Whole blocks, so that PDA contrasts the same proteins whatever the number of workers.
        num_blocks = -(-len(rows) // BLOCK)
        bounds = np.linspace(0, num_blocks, distributed.world_size(group) + 1).round().astype(int) * BLOCK
        rank = distributed.rank(group)
        self._rows = tokenize_pairs(
            rows.slice(bounds[rank], bounds[rank + 1] - bounds[rank]),
            model.protein_tokenizer,
            model.text_tokenizer,
            properties=model.model.architecture.objectives.pda > 0,
        )

    def measure(self, network: nn.Module, *, batch_size: int) -> dict[str, Any]:
        """Metrics on the pairs of all workers; every worker computes the same.

        Args:
            network: the model as it lies on the workers.
            batch_size: of the contrast, as in training.
        """
        model = self._model.model
        with layout.whole_weights(network):
            parts = [
                torch.from_numpy(self._model.forward_proteins(ragged(self._rows.column("protein_ids")))),
                torch.from_numpy(self._model.forward_texts(ragged(self._rows.column("text_ids")))),
                identity(self._rows),
            ]
            terms = validation_terms(model, self._batches(), group=self._group)
        protein_ND, text_ND, identity_N2 = (
            distributed.gather_uneven_rows(part.to(self._model.device), self._group) for part in parts
        )
        objectives = model.architecture.objectives
        metrics = validation_metrics(
            protein_ND,
            text_ND,
            identity_N2,
            model.logit_scale.detach(),
            batch_size=batch_size,
            prefixes=objectives.gc_prefixes,
        )
        return {**metrics, **with_loss({"gc": metrics["gc"], **terms}, objectives)}

    def _batches(self) -> Iterator[Batch]:
        for start in range(0, len(self._rows), BLOCK):
            yield self._collate(self._rows.slice(start, BLOCK)).to(self._model.device)
