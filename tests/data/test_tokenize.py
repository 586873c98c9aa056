"""Tokenizers against HuggingFace's, and their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from protclip.data.tokenize import ESM2_VOCABULARY, ProteinTokenizer, TextTokenizer
from protclip.errors import CheckpointError, ConfigError, DataError
from protclip.uniprot.residues import RESIDUES

pytestmark = pytest.mark.unit

TEXTS = [
    "PROTEIN NAME: Serum albumin.",
    "FUNCTION: Binds water, Ca(2+) and K(+).",
    "SIMILARITY: Belongs to the ALB family.",
]


def test_esm2_alphabet_has_its_33_tokens_in_place() -> None:
    assert len(ESM2_VOCABULARY) == 33
    assert [ESM2_VOCABULARY.index(token) for token in ("<cls>", "<pad>", "<eos>", "L", "O", "<mask>")] == [
        0,
        1,
        2,
        4,
        28,
        32,
    ]


def test_byte_table_gives_the_ids_of_transformers(tmp_path: Path) -> None:
    from transformers import EsmTokenizer

    tokenizer = ProteinTokenizer(max_tokens=64)
    tokenizer.save(str(tmp_path))
    published = EsmTokenizer(str(tmp_path / "vocab.txt"))
    random = np.random.default_rng(0)
    for length in (1, 5, 62, 63, 200):
        sequence = "".join(random.choice(list(RESIDUES), length))
        wanted = published(sequence, truncation=True, max_length=64)["input_ids"]
        assert tokenizer.encode(sequence).tolist() == wanted
    assert tokenizer.encode("mktj").tolist() == tokenizer.encode("MKTJ").tolist()


def test_user_sequences_are_checked_with_place_and_value() -> None:
    tokenizer = ProteinTokenizer()
    with pytest.raises(DataError, match=r"sequence 2 of 2: holds '7' at residue 3"):
        tokenizer.encode_checked(["MKT", "MK7T"])
    with pytest.raises(DataError, match="sequence 1 of 1 is empty"):
        tokenizer.encode_checked([""])


def test_text_tokenizer_survives_its_files_and_truncates(tmp_path: Path) -> None:
    tokenizer = TextTokenizer.train(TEXTS, vocabulary_size=200, max_tokens=8)
    tokenizer.save(str(tmp_path))
    again = TextTokenizer.load(str(tmp_path), max_tokens=8)
    assert again.encode(TEXTS) == tokenizer.encode(TEXTS)
    assert max(len(ids) for ids in again.encode(TEXTS)) == 8
    assert again.json == tokenizer.json


def test_training_a_text_tokenizer_twice_gives_the_same_one() -> None:
    runs = {TextTokenizer.train(TEXTS * 3, vocabulary_size=120, max_tokens=16).json for _ in range(8)}
    assert len(runs) == 1


def test_saved_text_tokenizer_is_one_for_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = TextTokenizer.train(TEXTS, vocabulary_size=200, max_tokens=32)
    tokenizer.save(str(tmp_path))
    published = AutoTokenizer.from_pretrained(str(tmp_path))
    assert published(TEXTS)["input_ids"] == tokenizer.encode(TEXTS)


def test_bad_tokenizers_and_texts_are_refused() -> None:
    with pytest.raises(CheckpointError, match="does not describe a tokenizer"):
        TextTokenizer.from_json("{}", max_tokens=8)
    with pytest.raises(ConfigError, match="max_tokens=2"):
        ProteinTokenizer(max_tokens=2)
    tokenizer = TextTokenizer.train(TEXTS, vocabulary_size=100, max_tokens=8)
    with pytest.raises(DataError, match="text 2 of 2 is empty"):
        tokenizer.encode_checked(["a", "  "])


def test_bert_s_old_vocabulary_file_gives_the_ids_of_transformers(tmp_path: Path) -> None:
    from transformers import BertTokenizer

    # The odd ones: Unicode's line separators are letters here, not ends of lines.
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "\u2028",
        "binds",
        "##in",
        "serum",
        "(",
        ")",
        "ca",
        "2",
        "+",
        "Ca",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    ours, theirs = TextTokenizer.load(str(tmp_path), max_tokens=16), BertTokenizer(str(tmp_path / "vocab.txt"))
    texts = ["Binds Ca(2+).", "serumin SERUM", "binds" * 3, "ca " * 40]
    assert ours.encode(texts) == theirs(texts, truncation=True, max_length=16)["input_ids"]
    assert ours.encode(["serum"]) == [[2, 8, 3]]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert TextTokenizer.load(str(tmp_path), max_tokens=16).encode(["Ca ca"]) == [[2, 14, 11, 3]]
