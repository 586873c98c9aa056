"""The unit of ``embed``: the rows of one block are embedded and written as one part."""

from __future__ import annotations

import contextlib
import ctypes
import socket
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from protclip.embeddings.blocks import BlockItem, PartReport, part_counts, place_of, read_block
from protclip.embeddings.previous import Lookup, previous_folder
from protclip.embeddings.reading import LONG, read_embeddings
from protclip.embeddings.settings import THREADS, EmbedConfig
from protclip.embeddings.writing import write_part, write_residues
from protclip.errors import CheckpointError
from protclip.trained_model import ProtCLIP
from protclip.uniprot.entry import BadEntry, RefusedError
from protclip.uniprot.residues import bare_residues

TOO_LONG = "longer than the model sees"
"""The reason by which such proteins are quarantined where that is asked for."""

MAX_TEXT_CHARS = 1 << 20
"""All of a text is cut into tokens, in some 120 bytes of memory a character, before the model sees its first ones."""


class EmbedBlock:
    """Embeds the rows of one block and writes them as one part; the model is loaded with the first."""

    def __init__(self, config: EmbedConfig, work: str, *, fingerprint: str | None = None, threads: int = 1) -> None:
        """Without loading anything.

        Args:
            config: with content, dtype and, of proteins, what becomes of long ones.
            work: the work folder, with the lookup of previous embeddings.
            fingerprint: of the model, which must be the same on each node; None where there is but one.
            threads: batches that are computed at once.
        """
        assert config.content is not None
        self.config, self.work, self.content = config, work, config.content
        self.fingerprint, self.threads = fingerprint, threads

    @cached_property
    def model(self) -> ProtCLIP:
        model = load_model(self.config, threads=self.threads)
        if self.fingerprint not in (None, model.fingerprint):  # a name is looked up on each node
            raise CheckpointError(
                f"{self.config.checkpoint}: is the model {model.fingerprint} on the node {socket.gethostname()}, and "
                f"{self.fingerprint} where the run was started; fetch it there again: "
                f"`protclip fetch-model {self.config.checkpoint} --overwrite`."
            )
        return model

    @cached_property
    def lookup(self) -> Lookup | None:
        if self.config.previous is None:
            return None
        return Lookup(read_embeddings(self.config.previous, verify=False), previous_folder(self.work))

    def __call__(self, item: BlockItem) -> PartReport:
        rows = read_block(item, self.content)
        number, num_read = int(item["unit"]), len(rows)
        with torch_threads(THREADS):
            rows, refused = self._without_refused(rows)
            vectors_ND, residues, unfit, num_reused = self._embedded_or_reused(rows)
        if unfit:
            refused += [(i, unfit[i].at(**place_of(rows, i))) for i in sorted(unfit)]
            kept = np.array([i not in unfit for i in range(len(rows))])
            rows, vectors_ND = rows.filter(pa.array(kept)), vectors_ND[kept]
            residues = [residues[i] for i in np.flatnonzero(kept)] if residues else []
        report: PartReport = {
            "number": number,
            "read": num_read,
            "reused": num_reused,
            **part_counts(rows, self.content, residues=self._num_residues(rows)),
            "refused": [entry.record() for _, entry in refused],
            "files": self._write(number, rows, vectors_ND, residues) if len(rows) else {},
        }
        _return_free_memory()
        return report

    def _without_refused(self, rows: pa.Table) -> tuple[pa.Table, list[tuple[int, BadEntry]]]:
        """The rows that can be embedded, with the column LONG; and why the others cannot."""
        config, refusals = self.config, dict[int, RefusedError]()
        long = pa.nulls(len(rows), LONG.type)
        if config.content == "protein":
            longest = self.model.max_protein_tokens - 2
            lengths = [len(bare_residues(sequence)) for sequence in rows.column("sequence").to_pylist()]
            long = pa.array([config.long if length > longest else None for length in lengths], LONG.type)
            allowed = f"at most {longest} residues, or --long truncate, or --long window-mean"
            if config.long == "error":
                refusals = {
                    i: RefusedError(TOO_LONG, f"{length} residues", allowed)
                    for i, length in enumerate(lengths)
                    if length > longest
                }
        else:  # a pair may have none
            allowed = "a name or one of the three comments"
            texts = rows.column("text").to_pylist()
            refusals = {i: RefusedError("no text", "", allowed) for i, text in enumerate(texts) if not text.strip()}
            allowed = f"at most {MAX_TEXT_CHARS:,} characters"
            refusals |= {
                i: RefusedError("text too large", f"{len(text):,} characters", allowed)
                for i, text in enumerate(texts)
                if len(text) > MAX_TEXT_CHARS
            }
        if config.format == "h5":
            for i, accession in enumerate(rows.column("accession").to_pylist()):
                if "/" in accession or accession == ".":
                    refusals[i] = RefusedError("no name of an HDF5 dataset", accession, "accessions without /")
        kept = np.array([i not in refusals for i in range(len(rows))], dtype=bool)
        refused = [(i, refusals[i].at(**place_of(rows, i))) for i in sorted(refusals)]
        return rows.append_column(LONG, long).filter(pa.array(kept)), refused

    def _embedded_or_reused(self, rows: pa.Table) -> tuple[np.ndarray, list[np.ndarray], dict[int, RefusedError], int]:
        """What ``_embedded`` gives, with vectors of the previous folder for the rows it has; and how many these are."""
        if self.lookup is None:
            return *self._embedded(rows), 0
        found, vectors_ND = self.lookup.find(rows)
        new = np.flatnonzero(~found)
        vectors_ND[new], _, unfit = self._embedded(rows.take(new))
        return vectors_ND, [], {int(new[i]): refusal for i, refusal in unfit.items()}, int(found.sum())

    def _embedded(self, rows: pa.Table) -> tuple[np.ndarray, list[np.ndarray], dict[int, RefusedError]]:
        """Vectors (N, D), the residues' own where they are asked for, and why a row has none."""
        config = self.config
        # What is there more than once is computed once.
        values = rows.column("sequence" if config.content == "protein" else "text").combine_chunks()
        encoded = values.dictionary_encode()
        distinct, place_N = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
        problems: dict[int, RefusedError] = {}
        residues: list[np.ndarray] = []

        def refuse(i: int, why: str) -> None:
            problems[i] = RefusedError("does not fit into memory", why, "what a device can hold")

        if config.content == "text":
            vectors_UD = self.model.embed_texts(
                distinct, layer=config.layer, dimensions=config.dimensions, refuse=refuse
            )
        elif config.residues:
            assert config.long in ("truncate", "error")
            vectors_UD, residues = self.model.embed_with_residues(distinct, long=config.long, refuse=refuse)
        else:
            assert config.long is not None
            vectors_UD = self.model.embed_proteins(
                distinct, long=config.long, layer=config.layer, dimensions=config.dimensions, refuse=refuse
            )
        for i in np.flatnonzero(~np.isfinite(vectors_UD).all(axis=1)).tolist():
            problems.setdefault(i, RefusedError("embedding is not finite", "NaN or infinity", "numbers"))
        unfit = {i: problems[place] for i, place in enumerate(place_N.tolist()) if place in problems}
        return vectors_UD[place_N], [residues[place] for place in place_N] if residues else [], unfit

    def _num_residues(self, rows: pa.Table) -> int:
        """That were computed, or characters."""
        if self.content == "text":
            return int(pc.sum(pc.utf8_length(rows.column("text"))).as_py() or 0)
        seen = pc.utf8_length(rows.column("sequence")).to_numpy()
        if self.config.long != "window-mean":
            seen = np.minimum(seen, self.model.max_protein_tokens - 2)
        return int(seen.sum())

    def _write(
        self, number: int, rows: pa.Table, vectors_ND: np.ndarray, residues: Sequence[np.ndarray]
    ) -> dict[str, dict[str, Any]]:
        form = self.config.format
        written = write_part(self.config.output, number, rows, vectors_ND, form=form, precision=self.config.precision)
        if self.config.residues:
            accessions = rows.column("accession").to_pylist()
            written |= write_residues(self.config.output, number, accessions, residues, form=form)
        return written


def load_model(config: EmbedConfig, *, threads: int) -> ProtCLIP:
    """The model of a config with a dtype, which computes so many batches at once."""
    assert config.dtype is not None
    model = ProtCLIP.from_pretrained(config.checkpoint, device=config.device, dtype=config.dtype)
    model.batches_at_once = threads
    return model


@contextlib.contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """So many for each of torch's operations, and what there was before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _return_free_memory() -> None:
    """Give the system what is free in glibc's heap: tensors of ever other sizes leave holes in it, and a worker that
    needs 0.5 GB would hold 1.7 GB after 500 batches (tests/embeddings/test_memory.py)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
