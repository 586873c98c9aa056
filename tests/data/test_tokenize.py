"""Tokenizers against HuggingFace's, and their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny_model import random_pairs, random_sequences, random_texts

from protclip.data import tokenize
from protclip.data.tokenize import ESM2_VOCABULARY, ProteinTokenizer, TextTokenizer, biotexts, tokenize_pairs
from protclip.errors import CheckpointError, ConfigError, DataError
from protclip.hashing import hash64
from protclip.protanno.biotext import property_texts
from protclip.protanno.shards import PROPERTIES
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


ODD = (
    *(
        "Ca(2+)-binding, ATP/GTP; 5'-end",
        "alpha",
        "Alpha",
        "α-helix",
        "café",
        "cafe\u0301",
        "\u0301",
        "(\u0308",
        "Σς",
        "İ",
    ),
    *(
        "膜タンパク質",
        "a膜b",
        "[SEP]",
        "x[MASK]y",
        "[ SEP]",
        "[CLS",
        "]",
        "\t",
        "a\u00a0b",
        "\u2028",
        "\x00\x07",
        "\ufffd",
    ),
    *(
        "“quoted”",
        "–",
        "a" * 120,
        "12345678",
        "",
        " ",
        "  ",
        "...",
        "\n",
        "𝛼",
        "\u037e",
        "=\u0338",
        "NAD(P)(+)",
        "[UNK]",
    ),
)


def odd_texts(count: int) -> list[str]:
    random = np.random.default_rng(1)
    joints = np.array([" ", " ", " ", "", "  ", ", "])
    return [
        "".join(str(random.choice(ODD)) + str(random.choice(joints)) for _ in range(random.integers(0, 12)))
        for _ in range(count)
    ]


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("max_tokens", [3, 9, 40, 512])
def test_a_column_of_texts_has_the_ids_of_each_text(lowercase: bool, max_tokens: int) -> None:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import BertNormalizer

    texts = [*odd_texts(600), *random_texts(50), ""]
    learned = TextTokenizer.train([*texts, *TEXTS], vocabulary_size=300, max_tokens=max_tokens)
    rust = Tokenizer.from_str(learned.json)
    rust.normalizer = BertNormalizer(lowercase=lowercase)
    tokenizer = TextTokenizer(rust, max_tokens=max_tokens)
    for part in (texts[:300], texts, texts[:0], [""]):  # the second knows the pieces of the first
        assert tokenizer.encode_column(part).to_pylist() == tokenizer.encode(part)


def test_a_tokenizer_that_looks_beyond_words_is_given_whole_texts() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    alphabet = {letter: i for i, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    rust = Tokenizer(models.BPE(vocab={**alphabet, "[CLS]": 256, "[SEP]": 257, "Ġb": 258}, merges=[("Ġ", "b")]))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 256), ("[SEP]", 257)]
    )
    tokenizer = TextTokenizer(rust, max_tokens=16)
    texts = ["a b", "b a", "a  b, b", ""]
    assert tokenizer.encode_column(texts).to_pylist() == tokenizer.encode(texts)


def test_forgotten_pieces_are_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TextTokenizer.train(TEXTS, vocabulary_size=200, max_tokens=32)
    monkeypatch.setattr(tokenize, "MAX_KNOWN_PIECES", 20)
    texts = random_texts(40)
    for start in range(0, 40, 5):
        part = [*texts[start : start + 5], TEXTS[start % 3]]
        assert tokenizer.encode_column(part).to_pylist() == tokenizer.encode(part)


def test_a_column_of_proteins_has_the_ids_of_each_protein() -> None:
    sequences = [*random_sequences(200), "", "M", "mktJ"]
    column = pa.chunked_array([sequences[:70], [], sequences[70:]], pa.string())
    for max_tokens in (3, 40, 200):
        tokenizer = ProteinTokenizer(max_tokens=max_tokens)
        for start, stop in ((0, 203), (10, 170), (5, 5)):
            wanted = [tokenizer.encode(sequence).tolist() for sequence in sequences[start:stop]]
            assert tokenizer.encode_column(column.slice(start, stop - start)).to_pylist() == wanted


def test_tokenised_pairs_are_those_of_each_row() -> None:
    pairs = random_pairs(60).slice(3, 50)
    protein = ProteinTokenizer(max_tokens=40)
    text = TextTokenizer.train(random_texts(50), vocabulary_size=120, max_tokens=20)
    tokens = tokenize_pairs(pairs, protein, text, properties=True)
    for row, token, whole in zip(pairs.to_pylist(), tokens.to_pylist(), biotexts(pairs), strict=True):
        parts = property_texts(*(row[name] for name in PROPERTIES))
        assert token == {
            "accession": row["accession"],
            "accession_hash": hash64(row["accession"]),
            "protein_ids": protein.encode(row["sequence"]).tolist(),
            "text_ids": text.encode([whole])[0],
            "sequence_hash": row["sequence_hash"],
            "text_hash": hash64("text", whole),
            "property_ids": [text.encode([part])[0] if part else None for part in parts],
        }
    assert tokenize_pairs(pairs, protein, text).equals(tokens.drop_columns(["property_ids"]))
