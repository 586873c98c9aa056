"""What of the pairs can be known to be in vain before a training starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from protclip.config import ObjectivesConfig
from protclip.data.collate import identity
from protclip.data.tokenize import TextTokenizer, biotexts, text_hashes
from protclip.errors import ConfigError, DataError
from protclip.metrics.retrieval import check_variety
from protclip.protanno.shards import PROPERTIES, Pairs, RowGroup, first_rows

SAMPLE_PAIRS = 2000
"""Training pairs, at most, that are looked at for what a sample shows."""
MAX_UNKNOWN_SHARE = 0.1
"""Of their words; PubMedBERT's vocabulary and others of English know all but a few in a thousand."""
IDENTITY_COLUMNS = [*PROPERTIES, "sequence_hash"]


def check_pairs(pairs: Pairs, objectives: ObjectivesConfig, *, valid_pairs: int) -> None:
    """Refuse pairs that teach nothing, or on which nothing can be measured.

    Args:
        pairs: those of training are read until two proteins and two texts are found.
        objectives: which terms the loss has.
        valid_pairs: how many of the validation pairs are measured on, at most.

    Raises:
        DataError: if the training pairs are of one protein or one text, so that a contrast has no negatives; or if the
            validation pairs are too uniform (``check_variety``).
        ConfigError: if PDA contrasts the properties of a protein, and none of the first pairs has two.
    """
    proteins: set[int] = set()
    texts: set[int] = set()
    for rows in _identities(pairs.row_groups("train"), pairs.num_rows("train")):
        proteins.update(rows.column("sequence_hash").to_pylist())
        texts.update(rows.column("text_hash").to_pylist())
        if min(len(proteins), len(texts)) > 1:
            break
    else:
        what = "protein" if len(proteins) < 2 else "text"
        raise DataError(
            f"{pairs.folder}: all training pairs have one {what}, so that a contrast has no negatives and nothing can "
            "be learned; curate more varied entries."
        )
    if objectives.pda > 0 and objectives.pda_negatives == "properties":
        _check_properties(pairs, objectives)
    rows = pa.concat_tables(_identities(pairs.row_groups("valid"), valid_pairs))
    check_variety(identity(rows), f"{pairs.folder}, validation pairs")


def _check_properties(pairs: Pairs, objectives: ObjectivesConfig) -> None:
    looked_at = 0
    for rows in first_rows(pairs.row_groups("train"), SAMPLE_PAIRS, list(PROPERTIES)):
        if any(sum(map(bool, texts.values())) > 1 for texts in rows.to_pylist()):
            return
        looked_at += len(rows)
    raise ConfigError(
        f"{pairs.folder}: objectives.pda={objectives.pda} contrasts the properties of a protein, and none of "
        f"{looked_at:,} training pairs has two, so that its loss would be 0; set objectives.pda=0, or "
        "objectives.pda_negatives=proteins."
    )


def check_words(tokenizer: TextTokenizer, train: Sequence[RowGroup], *, name: str) -> None:
    """Refuse a text tokenizer that does not know the language of the training texts.

    Args:
        tokenizer: of the text encoder.
        train: the row groups that are trained on; the first SAMPLE_PAIRS are looked at.
        name: of the encoder, for the message.

    Raises:
        ConfigError: with the share of words that it knows no tokens for, if that is above MAX_UNKNOWN_SHARE.
    """
    texts = [text for rows in first_rows(train, SAMPLE_PAIRS, list(PROPERTIES)) for text in biotexts(rows)]
    if (share := tokenizer.unknown_share(texts)) > MAX_UNKNOWN_SHARE:
        raise ConfigError(
            f"model.text.pretrained={name!r}: its tokenizer does not know {share:.0%} of the words of {len(texts):,} "
            f"training texts, which become [UNK] (at most {MAX_UNKNOWN_SHARE:.0%} make sense); its vocabulary may be "
            "of another language, or in capitals: take an encoder for such texts."
        )


def _identities(groups: Sequence[RowGroup], limit: int) -> Iterable[pa.Table]:
    for rows in first_rows(groups, limit, IDENTITY_COLUMNS):
        yield rows.select(["sequence_hash"]).append_column("text_hash", text_hashes(biotexts(rows)))
