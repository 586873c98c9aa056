"""Tokenizers of both sides, and a pair's columns as token ids.

Proteins go through a byte table over ESM-2's alphabet; texts through a Rust tokenizer (WordPiece for BERT). A column of
texts is cut into pieces, about its words, of which each distinct one goes through the tokenizer once.

Shapes: N rows, C bytes of all rows, P pieces of all rows, D distinct pieces, T tokens of all rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from protclip import files
from protclip.checked import checked
from protclip.data.text_columns import framed_lists, piece_cuts, piece_starts, sums_before, utf8_bytes
from protclip.errors import CheckpointError, ConfigError
from protclip.hashing import hash64
from protclip.inputs import check_texts
from protclip.protanno.biotext import biotext, property_texts
from protclip.protanno.shards import PROPERTIES
from protclip.uniprot.residues import checked_sequences

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ESM2_VOCABULARY = ("<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>")
"""ESM-2's 33 tokens in order (facebook/esm2_*, vocab.txt)."""

PROTEIN_SPECIAL_TOKENS = ("<cls>", "<pad>", "<eos>", "<unk>", "<mask>")
TEXT_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

MAX_KNOWN_PIECES = 200_000
"""Pieces whose token ids a text tokenizer remembers from one column to the next: 150 MB at most."""

MAX_TOKEN_ID = 10_000_000
"""Some 40 times as many as the largest vocabularies have."""
_UNKNOWN = "ꙮ" * 1000

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

SHOWN_HASH = "shown_hash"
"""Another column, of the text that ``text_ids`` are of, where that is not the biotext."""


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
        if len(self.vocabulary) > 256 or len(ids) < len(self.vocabulary) or not all(map(str.isascii, ids)):
            raise ConfigError(
                f"a protein vocabulary of {len(self.vocabulary)} tokens, {len(ids)} different ones; at most 256 are "
                "allowed, in ASCII and each once. Give one of ESM-2's kind."
            )
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

    def encode_column(self, sequences: pa.ChunkedArray) -> pa.ListArray:
        """The same of a column of ASCII sequences, such as a folder of pairs has, as lists of uint8."""
        residue_C, start_N1 = utf8_bytes(pc.binary_slice(sequences.cast(pa.binary()), 0, self.max_tokens - 2))
        return framed_lists(self._table[residue_C], np.diff(start_N1), self.cls_id, self.eos_id)

    def encode_checked(self, sequences: Sequence[str]) -> list[np.ndarray]:
        """Token ids of sequences that a user gave.

        Raises:
            RequestError: for an empty sequence or a letter that is no residue, naming its place.
        """
        return [self.encode(sequence) for sequence in self.residues_checked(sequences)]

    def residues_checked(self, sequences: Sequence[str]) -> list[str]:
        """The residues of sequences that a user gave, mapped as ``protclip.uniprot.residues`` says; not cut.

        Raises:
            RequestError: for an empty sequence or a letter that is no residue, naming its place.
        """
        return checked_sequences(sequences)

    def save(self, folder: str) -> list[str]:
        """Write it so that ``transformers.EsmTokenizer`` reads it too; returns the file names."""
        with files.atomic_write(files.join(folder, "vocab.txt")) as stream:
            stream.write("\n".join(self.vocabulary).encode())
        config = {"tokenizer_class": "EsmTokenizer", "model_max_length": self.max_tokens}
        files.write_json(files.join(folder, "tokenizer_config.json"), config)
        return ["vocab.txt", "tokenizer_config.json"]

    @classmethod
    def load(cls, folder: str, *, max_tokens: int) -> ProteinTokenizer:
        """Read ``vocab.txt`` of a folder.

        Raises:
            DataError: if it cannot be read.
            ConfigError: if it is not the vocabulary of a protein encoder.
        """
        return cls(files.read_text(files.join(folder, "vocab.txt")).split(), max_tokens=max_tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class _BertTokenizerConfig:
    do_lower_case: bool = True


class TextTokenizer:
    """A Rust tokenizer with the truncation that the model needs; ``json`` is all of its state."""

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int) -> None:
        if max_tokens < 3:
            raise ConfigError(f"max_tokens={max_tokens} of the text leaves no word; at least 3 are needed.")
        self.max_tokens = max_tokens
        ids = tokenizer.get_vocab().values()
        if max(ids, default=0) > MAX_TOKEN_ID:  # to_str keeps a list up to the largest
            raise ConfigError(f"a token of the text has the number {max(ids)}; at most {MAX_TOKEN_ID:,} is allowed.")
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        self._tokenizer = tokenizer
        self._frame = tokenizer.encode("").ids
        """The special tokens round a text."""
        self.largest_id = max([0, *ids, *self._frame])
        """Of all tokens."""
        tokenizer.encode(_UNKNOWN)  # a model without its token for unknown words says so here, and not in a job
        self._cuts_256 = piece_cuts(tokenizer)
        self._known: dict[str, list[int]] = {}
        """Token ids of pieces, without special tokens."""

    @property
    def json(self) -> str:
        """The tokenizer's whole state."""
        state: str = self._tokenizer.to_str()
        return state

    @property
    def vocabulary_size(self) -> int:
        """Embeddings that the tokens need, special ones included: one more than the largest token id."""
        return int(max(self._tokenizer.get_vocab().values(), default=-1)) + 1

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included; at most ``max_tokens`` each."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def encode_column(self, texts: Sequence[str]) -> pa.ListArray:
        """The same of many texts, as lists of int32.

        It is faster the more the texts have in common, and with what the tokenizer has seen before.
        """
        if self._cuts_256 is None:
            return pa.array(self.encode(texts), pa.list_(pa.int32()))
        byte_C, start_N1 = utf8_bytes(pa.array(texts, pa.string()))
        start_P1 = piece_starts(self._cuts_256[byte_C], start_N1)
        offsets, data = (pa.py_buffer(array) for array in (start_P1.astype(np.int32), byte_C))
        pieces = pa.StringArray.from_buffers(len(start_P1) - 1, offsets, data).dictionary_encode()
        ids_D = self._ids_of_pieces(pieces.dictionary.to_pylist())
        length_D = np.fromiter(map(len, ids_D), dtype=np.int64, count=len(ids_D))

        piece_P = pieces.indices.to_numpy()
        length_P = length_D[piece_P]
        first_N1 = np.searchsorted(start_P1, start_N1)  # of its pieces
        room_P = np.repeat(sums_before(length_P)[first_N1[:-1]] + self.max_tokens - 2, np.diff(first_N1))
        length_P = np.clip(room_P - sums_before(length_P)[:-1], 0, length_P)
        shift_P = sums_before(length_D)[piece_P] - sums_before(length_P)[:-1]
        values = np.fromiter(chain.from_iterable(ids_D), dtype=np.int32, count=int(length_D.sum()))
        ids_T = values[np.repeat(shift_P, length_P) + np.arange(length_P.sum())]
        return framed_lists(ids_T, np.diff(sums_before(length_P)[first_N1]), *self._frame)

    def _ids_of_pieces(self, pieces: list[str]) -> list[list[int]]:
        known = self._known
        new = [piece for piece in pieces if piece not in known]
        if len(known) + len(new) > MAX_KNOWN_PIECES:
            known.clear()
            new = pieces
        encodings = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
        known.update((piece, encoding.ids) for piece, encoding in zip(new, encodings, strict=True))
        return [known[piece] for piece in pieces]

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Share of the words and marks of texts that have no tokens of their own, and become ``[UNK]``."""
        model = json.loads(self.json)["model"]
        unknown = self._tokenizer.token_to_id(model.get("unk_token") or "[UNK]")
        words = lost = 0
        for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False):
            ids_of: dict[int | None, set[int]] = {}
            for word, token in zip(encoding.word_ids, encoding.ids, strict=True):
                ids_of.setdefault(word, set()).add(token)
            words += len(ids_of)
            lost += sum(unknown in ids for ids in ids_of.values())
        return lost / max(1, words)

    def encode_checked(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts that a user gave.

        Raises:
            RequestError: for an empty text, or one that holds half of a surrogate pair, naming its place.
        """
        check_texts(texts)
        return self.encode(texts)

    def cuts(self, text: str) -> bool:
        """Whether a text has more than ``max_tokens`` tokens, so that its end is not seen."""
        return bool(self._tokenizer.encode(text).overflowing)

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
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the Rust library raises nothing narrower, and a panic there is no Exception
            raise CheckpointError(f"tokenizer.json does not describe a tokenizer ({error}).") from error

    @classmethod
    def load(cls, folder: str, *, max_tokens: int) -> TextTokenizer:
        """Read ``tokenizer.json`` of a folder, or BERT's older ``vocab.txt`` where that is all there is.

        Raises:
            DataError: if it cannot be read.
            CheckpointError: if it is not a text tokenizer.
        """
        path, old_path = (files.join(folder, name) for name in ("tokenizer.json", "vocab.txt"))
        if files.exists(path) or not files.exists(old_path):
            return cls.from_json(files.read_text(path), max_tokens=max_tokens)
        # Not splitlines: a vocabulary may hold Unicode's line separators as tokens.
        lines = files.read_text(old_path).removesuffix("\n").split("\n")
        vocabulary = {line.removesuffix("\r"): i for i, line in enumerate(lines)}
        if lacking := [token for token in TEXT_SPECIAL_TOKENS if token not in vocabulary]:
            raise CheckpointError(f"{old_path}: lacks {', '.join(lacking)}; it is not the vocabulary of a BERT.")
        config_path = files.join(folder, "tokenizer_config.json")
        config = files.read_json(config_path) if files.exists(config_path) else {}
        lowercase = checked(_BertTokenizerConfig, config, config_path, error=CheckpointError).do_lower_case
        return cls(_wordpiece(vocabulary, lowercase=lowercase), max_tokens=max_tokens)

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


def text_hashes(texts: Iterable[str]) -> pa.Array:
    """What tells biotexts apart, uint64."""
    return pa.array([hash64("text", text) for text in texts], pa.uint64())


def tokenize_pairs(
    pairs: pa.Table,
    protein: ProteinTokenizer,
    text: TextTokenizer,
    *,
    properties: bool = False,
    shown: Sequence[str] | None = None,
) -> pa.Table:
    """Rows of the pairs' schema into rows of ``TOKEN_SCHEMA``, in the same order.

    Args:
        pairs: with TOKENIZED_COLUMNS.
        protein: the protein tokenizer.
        text: the text tokenizer.
        properties: tokenise each property by itself too (``PROPERTY_SCHEMA``).
        shown: what the text encoder sees of each row in place of its biotext; adds the column SHOWN_HASH.
    """
    texts = biotexts(pairs)
    accessions = pairs.column("accession")
    columns = [
        accessions,
        pa.array([hash64(accession) for accession in accessions.to_pylist()], pa.uint64()),
        protein.encode_column(pairs.column("sequence")),
        text.encode_column(texts if shown is None else shown),
        pairs.column("sequence_hash"),
        text_hashes(texts),
    ]
    if properties:
        tokens = pa.table([*columns, _property_ids(pairs, text)], schema=PROPERTY_SCHEMA)
    else:
        tokens = pa.table(columns, schema=TOKEN_SCHEMA)
    return tokens if shown is None else tokens.append_column(SHOWN_HASH, text_hashes(shown))


def _property_ids(pairs: pa.Table, text: TextTokenizer) -> pa.Array:
    columns = (pairs.column(name).to_pylist() for name in PROPERTIES)
    texts = [value for values in zip(*columns, strict=True) for value in property_texts(*values)]
    present = np.fromiter(map(bool, texts), dtype=bool, count=len(texts))
    encoded = text.encode_column([value for value in texts if value])
    lengths = np.zeros(len(texts), dtype=np.int64)
    lengths[present] = np.diff(encoded.offsets.to_numpy())
    offsets = pa.array(sums_before(lengths), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, encoded.values, mask=pa.array(~present))
    return pa.ListArray.from_arrays(pa.array(np.arange(len(pairs) + 1) * len(PROPERTIES), pa.int32()), lists)


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
