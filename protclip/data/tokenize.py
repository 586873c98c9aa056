"""Tokenizers of both sides, and a pair's columns as token ids.

Proteins go through a byte table over ESM-2's alphabet; texts through a Rust tokenizer (WordPiece for BERT).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from protclip import files
from protclip.errors import CheckpointError, ConfigError, DataError
from protclip.hashing import hash64
from protclip.protanno.biotext import biotext, property_texts
from protclip.protanno.shards import PROPERTIES
from protclip.uniprot.residues import bare_residues, find_invalid_residue, invalid_residue_message

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ESM2_VOCABULARY = ("<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>")
"""ESM-2's 33 tokens in order (facebook/esm2_*, vocab.txt)."""

PROTEIN_SPECIAL_TOKENS = ("<cls>", "<pad>", "<eos>", "<unk>", "<mask>")
TEXT_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

TOKENIZED_COLUMNS = ("accession", "sequence", *PROPERTIES, "sequence_hash")
"""The columns of a pair that tokenisation needs."""

TOKEN_SCHEMA = pa.schema(
    [
        ("accession", pa.string()),
        ("accession_hash", pa.uint64()),
        ("protein_ids", pa.list_(pa.uint8())),
        ("text_ids", pa.list_(pa.int32())),
        ("sequence_hash", pa.uint64()),
        ("text_hash", pa.uint64()),
    ]
)
"""A tokenised pair: what travels from Ray Data to the train worker, without padding."""

PROPERTY_SCHEMA = TOKEN_SCHEMA.append(pa.field("property_ids", pa.list_(pa.list_(pa.int32()))))
"""The same with the token ids of each of the four properties, null where absent: for PDA alone."""


class ProteinTokenizer:
    """``<cls> residues <eos>`` over a vocabulary of single letters, truncated at the C-terminus.

    Letters that the vocabulary lacks (J in ESM-2) become ``<unk>``, as in HuggingFace's EsmTokenizer.
    """

    def __init__(self, vocabulary: Sequence[str] = ESM2_VOCABULARY, *, max_tokens: int = 1024) -> None:
        if max_tokens < 3:
            raise ConfigError(f"max_tokens={max_tokens} of the protein leaves no residue; at least 3 are needed.")
        self.vocabulary = tuple(vocabulary)
        self.max_tokens = max_tokens
        ids = {token: i for i, token in enumerate(self.vocabulary)}
        if missing := [token for token in PROTEIN_SPECIAL_TOKENS if token not in ids]:
            raise ConfigError(f"the protein vocabulary lacks {', '.join(missing)}; give one of ESM-2's kind.")
        self.cls_id, self.pad_id, self.eos_id = ids["<cls>"], ids["<pad>"], ids["<eos>"]
        self.mask_id = ids["<mask>"]
        self._table = np.full(256, ids["<unk>"], dtype=np.uint8)
        for token, i in ids.items():
            if len(token) == 1:
                self._table[ord(token)] = self._table[ord(token.lower())] = i

    def encode(self, sequence: str) -> np.ndarray:
        """Token ids, uint8, of one sequence; at most ``max_tokens`` of them."""
        residues = np.frombuffer(sequence[: self.max_tokens - 2].encode("latin-1", "replace"), dtype=np.uint8)
        ids = np.empty(len(residues) + 2, dtype=np.uint8)
        ids[0], ids[-1] = self.cls_id, self.eos_id
        ids[1:-1] = self._table[residues]
        return ids

    def encode_checked(self, sequences: Sequence[str]) -> list[np.ndarray]:
        """Token ids of sequences that a user gave.

        Raises:
            DataError: for an empty sequence or a letter that is no residue, naming its place.
        """
        return [self.encode(sequence) for sequence in self.residues_checked(sequences)]

    def residues_checked(self, sequences: Sequence[str]) -> list[str]:
        """The residues of sequences that a user gave, mapped as ``protclip.uniprot.residues`` says; not cut.

        Raises:
            DataError: for an empty sequence or a letter that is no residue, naming its place.
        """
        checked = []
        for number, sequence in enumerate(sequences, start=1):
            residues = bare_residues(sequence)
            if not residues:
                raise DataError(f"sequence {number} of {len(sequences)} is empty; remove it.")
            if (position := find_invalid_residue(residues)) is not None:
                message = invalid_residue_message(residues, position)
                raise DataError(f"sequence {number} of {len(sequences)}: {message}")
            checked.append(residues.upper())
        return checked

    def save(self, folder: str) -> list[str]:
        """Write it so that ``transformers.EsmTokenizer`` reads it too; returns the file names."""
        with files.atomic_write(files.join(folder, "vocab.txt")) as stream:
            stream.write("\n".join(self.vocabulary).encode())
        config = {"tokenizer_class": "EsmTokenizer", "model_max_length": self.max_tokens}
        files.write_json(files.join(folder, "tokenizer_config.json"), config)
        return ["vocab.txt", "tokenizer_config.json"]

    @classmethod
    def load(cls, folder: str, *, max_tokens: int) -> ProteinTokenizer:
        """Read ``vocab.txt`` of a folder."""
        with files.open_read(files.join(folder, "vocab.txt")) as stream:
            return cls(stream.read().decode().split(), max_tokens=max_tokens)


class TextTokenizer:
    """A Rust tokenizer with the truncation that the model needs; ``json`` is all of its state."""

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int) -> None:
        if max_tokens < 3:
            raise ConfigError(f"max_tokens={max_tokens} of the text leaves no word; at least 3 are needed.")
        self.max_tokens = max_tokens
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        self._tokenizer = tokenizer

    @property
    def json(self) -> str:
        """The tokenizer's whole state."""
        state: str = self._tokenizer.to_str()
        return state

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, special ones included."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included; at most ``max_tokens`` each."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def encode_checked(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts that a user gave.

        Raises:
            DataError: for an empty text, naming its place.
        """
        for number, text in enumerate(texts, start=1):
            if not text.strip():
                raise DataError(f"text {number} of {len(texts)} is empty; remove it.")
        return self.encode(texts)

    def save(self, folder: str) -> list[str]:
        """Write it as HuggingFace's fast tokenizers are; returns the file names."""
        special = {
            f"{name}_token": f"[{name.upper()}]"
            for name in ("pad", "unk", "cls", "sep", "mask")
            if self._tokenizer.token_to_id(f"[{name.upper()}]") is not None
        }
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": self.max_tokens, **special}
        with files.atomic_write(files.join(folder, "tokenizer.json")) as stream:
            stream.write(self.json.encode())
        files.write_json(files.join(folder, "tokenizer_config.json"), config)
        return ["tokenizer.json", "tokenizer_config.json"]

    @classmethod
    def from_json(cls, state: str, *, max_tokens: int) -> TextTokenizer:
        """The tokenizer whose ``json`` this is.

        Raises:
            CheckpointError: if it is not a tokenizer's state.
        """
        from tokenizers import Tokenizer

        try:
            return cls(Tokenizer.from_str(state), max_tokens=max_tokens)
        except Exception as error:  # the Rust library raises nothing narrower
            raise CheckpointError(f"tokenizer.json does not describe a tokenizer ({error}).") from error

    @classmethod
    def load(cls, folder: str, *, max_tokens: int) -> TextTokenizer:
        """Read ``tokenizer.json`` of a folder, or BERT's older ``vocab.txt`` where that is all there is.

        Raises:
            CheckpointError: if it is not a text tokenizer.
        """
        path, old_path = (files.join(folder, name) for name in ("tokenizer.json", "vocab.txt"))
        if files.exists(path) or not files.exists(old_path):
            with files.open_read(path) as stream:
                return cls.from_json(stream.read().decode(), max_tokens=max_tokens)
        with files.open_read(old_path) as stream:
            # Not splitlines: a vocabulary may hold Unicode's line separators as tokens.
            lines = stream.read().decode().removesuffix("\n").split("\n")
        vocabulary = {line.removesuffix("\r"): i for i, line in enumerate(lines)}
        if lacking := [token for token in TEXT_SPECIAL_TOKENS if token not in vocabulary]:
            raise CheckpointError(f"{old_path}: lacks {', '.join(lacking)}; it is not the vocabulary of a BERT.")
        config_path = files.join(folder, "tokenizer_config.json")
        config = files.read_json(config_path) if files.exists(config_path) else {}
        return cls(_wordpiece(vocabulary, lowercase=config.get("do_lower_case", True)), max_tokens=max_tokens)

    @classmethod
    def train(cls, texts: Iterable[str], *, vocabulary_size: int, max_tokens: int) -> TextTokenizer:
        """A lower-casing WordPiece tokenizer learned from texts, as BERT's is (Devlin et al. 2019).

        The same texts give the same tokenizer.
        """
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

        normalizer = normalizers.BertNormalizer(lowercase=True)
        normalized = [normalizer.normalize_str(text) for text in texts]
        # The trainer numbers a word's inner letters as its hash map meets them, and breaks ties of frequency by number:
        # given beforehand, they have the same numbers in every run.
        letters = sorted({letter for text in normalized for letter in text if not letter.isspace()})
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocabulary_size,
            special_tokens=[*TEXT_SPECIAL_TOKENS, *(f"##{letter}" for letter in letters)],
            initial_alphabet=letters,
            show_progress=False,
        )
        learned = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        learned.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        learned.train_from_iterator(normalized, trainer)
        return cls(_wordpiece(learned.get_vocab(), lowercase=True), max_tokens=max_tokens)


def biotexts(pairs: pa.Table) -> list[str]:
    """The biotext of each row, composed from its property columns."""
    columns = (pairs.column(name).to_pylist() for name in PROPERTIES)
    return [biotext(*properties) for properties in zip(*columns, strict=True)]


def tokenize_pairs(
    pairs: pa.Table, protein: ProteinTokenizer, text: TextTokenizer, *, properties: bool = False
) -> pa.Table:
    """Rows of the pairs' schema into rows of ``TOKEN_SCHEMA``, in the same order.

    Args:
        pairs: with TOKENIZED_COLUMNS.
        protein: the protein tokenizer.
        text: the text tokenizer.
        properties: tokenise each property by itself too (``PROPERTY_SCHEMA``).
    """
    texts = biotexts(pairs)
    accessions = pairs.column("accession")
    columns = [
        accessions,
        pa.array([hash64(accession) for accession in accessions.to_pylist()], pa.uint64()),
        pa.array((protein.encode(sequence) for sequence in pairs.column("sequence").to_pylist()), pa.list_(pa.uint8())),
        pa.array(text.encode(texts), pa.list_(pa.int32())),
        pairs.column("sequence_hash"),
        pa.array([hash64("text", value) for value in texts], pa.uint64()),
    ]
    if not properties:
        return pa.table(columns, schema=TOKEN_SCHEMA)
    return pa.table([*columns, _property_ids(pairs, text)], schema=PROPERTY_SCHEMA)


def _property_ids(pairs: pa.Table, text: TextTokenizer) -> pa.Array:
    columns = (pairs.column(name).to_pylist() for name in PROPERTIES)
    rows = [property_texts(*values) for values in zip(*columns, strict=True)]
    encoded = iter(text.encode([value for row in rows for value in row if value]))
    ids = [[next(encoded) if value else None for value in row] for row in rows]
    return pa.array(ids, PROPERTY_SCHEMA.field("property_ids").type)


def _wordpiece(vocabulary: dict[str, int], *, lowercase: bool) -> Tokenizer:
    """BERT's tokenizer over a vocabulary."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(TEXT_SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer
