"""``Retriever``: a model and the indexes that it made, asked in one way by Python, command line and server.

    question ── embed ──→ asked (a vector, and what it was made from) ── find ──→ answer

``search`` does both. A server embeds the questions of many requests together and finds for each under its own options.
``protclip.questions`` has the form of questions and answers.

Shapes: n questions, D width of an embedding, T texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from protclip.checkpoints import checkpoint_folder
from protclip.dimensions import cut_to
from protclip.embeddings.reading import Content
from protclip.errors import IndexMismatchError, NotFoundError, RequestError
from protclip.hits import NONE_OWN, check_own, make_answers, num_wanted, own_rows
from protclip.index.index import Index
from protclip.index.manifest import read_index_manifest
from protclip.inputs import Dtype, check_pairs
from protclip.model.record import read_checkpoint_fingerprint
from protclip.questions import DEFAULTS, Answer, Asked, Explanation, Options, Prepared, Question, Row
from protclip.uniprot.residues import checked_residues

if TYPE_CHECKING:
    import torch

    from protclip.explanation import Steps
    from protclip.trained_model import ProtCLIP


class Retriever:
    """A model with an index of proteins, of texts, or both, that were checked to belong together."""

    def __init__(self, model: ProtCLIP | None = None, *indexes: Index) -> None:
        """Without a model, questions are accessions and vectors; without an index, nothing can be searched.

        Raises:
            IndexMismatchError: if model and indexes do not belong together, or two indexes hold the same.
        """
        self.model = model
        self.indexes: dict[Content, Index] = {}
        for index in indexes:
            manifest = index.manifest
            if manifest.content in self.indexes:
                raise IndexMismatchError(f"two indexes of {manifest.content}s; one of each kind can be asked.")
            self.indexes[manifest.content] = index
            if model is not None:
                manifest.check_model(model.fingerprint, f"the index of {manifest.content}s")
            first = indexes[0].manifest
            for what in ("model_fingerprint", "dimension", "dtype"):
                if getattr(manifest, what) != getattr(first, what):
                    raise IndexMismatchError(
                        f"{what} of the index of {first.content}s is {getattr(first, what)}, that of "
                        f"{manifest.content}s {getattr(manifest, what)}; embed both with one model in one dtype."
                    )

    @classmethod
    def load(
        cls,
        *indexes: str,
        checkpoint: str | None = None,
        device: str | torch.device = "cpu",
        dtype: Dtype | None = None,
    ) -> Retriever:
        """Load a model and its indexes, after all was checked that can be without loading them.

        Args:
            indexes: paths or URLs; of proteins, of texts, or one of each.
            checkpoint: of the model that made them, as for ``ProtCLIP.from_pretrained``; None where accessions and
                vectors are asked alone.
            device: where the model computes.
            dtype: in which it computes; None for that of the indexes.

        Raises:
            CheckpointError, DataError: if a folder is unfinished, damaged, or something else.
            ConfigError: if the checkpoint cannot be fetched.
            IndexMismatchError: if they do not belong together.
        """
        checkpoint = None if checkpoint is None else checkpoint_folder(checkpoint)
        fingerprint = None if checkpoint is None else read_checkpoint_fingerprint(checkpoint)
        manifests = [read_index_manifest(path) for path in indexes]
        if fingerprint is not None:
            for path, manifest in zip(indexes, manifests, strict=True):
                manifest.check_model(fingerprint, path)
        loaded = [Index.load(path) for path in indexes]
        model = None
        if checkpoint is not None:
            from protclip.trained_model import ProtCLIP

            dtype = dtype or (manifests[0].dtype if manifests else "float32")
            model = ProtCLIP.from_pretrained(checkpoint, device=device, dtype=dtype)
        return cls(model, *loaded)

    def search(
        self,
        *,
        text: str | None = None,
        sequence: str | None = None,
        accession: str | None = None,
        vector: NDArray[np.float32] | None = None,
        **options: Any,
    ) -> Answer:
        """The answer to one question, such as ``search(text="hydrolyses ATP", k=5, where="reviewed")``.

        Args:
            text, sequence, accession, vector: as of ``Question``; one of them.
            options: as of ``Options``.

        Raises:
            RequestError: if the question or an option cannot be; NotFoundError for an unknown accession.
        """
        question = Question(text=text, sequence=sequence, accession=accession, vector=vector)
        return self.search_all([question], Options(**options))[0]

    def search_all(self, questions: Sequence[Question], options: Options = DEFAULTS) -> list[Answer]:
        """The answers to several questions, embedded and searched together; the same as of each alone.

        Raises:
            RequestError: as ``embed`` and ``find``.
        """
        return self.find(self.embed(questions), options)

    def embed(self, questions: Sequence[Question]) -> list[Asked]:
        """Questions as vectors.

        Raises:
            RequestError: as ``prepare``.
        """
        return self.forward(self.prepare(questions))

    def prepare(self, questions: Sequence[Question]) -> list[Prepared]:
        """Tokenise texts and sequences, and look accessions up.

        Raises:
            NotFoundError: for an accession that no index holds.
            RequestError: for a text or a sequence where there is no model.
        """
        accessions = iter(self._look_up([q.accession for q in questions if q.accession is not None]))
        prepared = []
        for question in questions:
            if question.vector is not None:
                prepared.append(Prepared(question=question, vector=question.vector, kind=question.kind))
            elif question.accession is not None:
                vector, kind = next(accessions)
                prepared.append(Prepared(question=question, vector=vector, kind=kind))
            else:
                prepared.append(self._tokenised(question))
        return prepared

    def forward(self, prepared: Sequence[Prepared]) -> list[Asked]:
        """Embed what was prepared, by one pass of each encoder in batches within the token budget."""
        vectors = [one.vector for one in prepared]
        for kind in ("protein", "text"):
            if mine := [i for i, one in enumerate(prepared) if one.vector is None and one.kind == kind]:
                model = self._model()
                embed = model.forward_proteins if kind == "protein" else model.forward_texts
                for i, vector in zip(mine, embed([prepared[i].ids for i in mine]), strict=True):
                    vectors[i] = vector
        return [
            Asked(
                question=one.question,
                vector=vector,
                kind=one.kind,
                truncated=one.truncated,
                num_tokens=one.num_tokens,
            )
            for one, vector in zip(prepared, vectors, strict=True)
            if vector is not None
        ]

    def find(self, asked: Sequence[Asked], options: Options = DEFAULTS) -> list[Answer]:
        """The answer to each question.

        Raises:
            RequestError: where no index of the wanted kind is loaded, a vector has another width than the index, or
                the question's own row is to be left out and cannot be told.
        """
        index = self._index(options.content)
        dimension = index.manifest.dimension
        asked = [fitted(one, dimension) for one in asked]
        for one in asked:
            if one.vector.shape != (dimension,):
                raise RequestError(f"vector: has {one.vector.size} numbers, and those of the index {dimension}.")
        if not asked:
            return []
        own = NONE_OWN * len(asked)
        if options.exclude_self:
            for one in asked:
                check_own(one.question)
            own = own_rows(index, [one.question for one in asked])
        scores_NK, rows_NK = index.search(
            np.stack([one.vector for one in asked]),
            num_wanted(options, own),
            where=options.where,
            exact=options.exact or None,
        )
        return make_answers(index.manifest, asked, options, own, scores_NK, rows_NK, index)

    def score(self, sequences: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        """Cosine of each pair, (n,): sequence i with text i, as the score of a hit.

        Raises:
            RequestError: for what cannot be embedded, or lists of different lengths.
        """
        check_pairs(sequences, texts)
        model = self._model()
        return pair_cosines(model.embed_proteins(sequences), model.embed_texts(texts))

    def classify(self, sequences: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        """Zero-shot: how likely each of the given texts is that of each sequence, (n, T); rows sum to 1.

        It is the softmax over the texts of cosines by the model's own scale, exp(logit_scale), as in training. The
        texts compete: a number says nothing of a text alone.

        Raises:
            RequestError: for what cannot be embedded.
        """
        if not len(texts):
            raise RequestError("no text is given; one or more are needed.")
        model = self._model()
        return softmax(model.similarity(model.embed_proteins(sequences), model.embed_texts(texts)))

    def row(self, accession: str, columns: Sequence[str] | None = None) -> Row:
        """What the index knows of a protein.

        Args:
            accession: of the protein.
            columns: as of ``Index.rows``.

        Raises:
            NotFoundError: if the index does not hold it.
        """
        for index in self.indexes.values():
            rows, _ = index.find("accession", [accession])
            if len(rows):
                return cast(Row, index.rows(rows[:1], columns)[0])
        raise NotFoundError(f"accession {accession!r:.80}: the index does not hold it.")

    def explain(
        self, sequence: str, text: str, *, accession: str | None = None, window: int | None = None, stride: int = 1
    ) -> Explanation:
        """Which residues make a protein match a text, by both methods of ``protclip.explanation``.

        Args:
            sequence: in one-letter code; of one longer than the model sees, the beginning.
            text: such as ``FUNCTION: Hydrolyses ATP.``
            accession: whose sequence it is, for the answer alone.
            window: residues masked together; None for the default.
            stride: residues from one window to the next.

        Raises:
            RequestError: for a sequence or text that cannot be embedded, or a window or stride that cannot be.
        """
        steps = self.explain_in_steps(sequence, text, accession=accession, window=window, stride=stride)
        return steps.answer(steps.text_side(), steps.embed(steps.passes.all))

    def explain_in_steps(
        self, sequence: str, text: str, *, accession: str | None = None, window: int | None = None, stride: int = 1
    ) -> Steps:
        """What ``explain`` does, for a server that does other things in between; arguments and errors as there."""
        from protclip.explanation import WINDOW, Steps, occlusion_passes

        model = self._model()
        residues = checked_residues(sequence, "sequence")
        passes = occlusion_passes(model, residues, window=WINDOW if window is None else window, stride=stride)
        return Steps(model=model, sequence=residues, text=text, accession=accession, passes=passes)

    def _model(self) -> ProtCLIP:
        if self.model is not None:
            return self.model
        for index in self.indexes.values():
            if (name := index.manifest.external_model) is not None:
                raise RequestError(
                    f"the index holds vectors of {name!r}, which this software does not compute; ask by accession or "
                    "vector."
                )
        raise RequestError("no model is loaded, so only accessions and vectors can be asked; load its checkpoint too.")

    def _index(self, content: Content | None) -> Index:
        if content is None and self.indexes:
            content = "protein" if "protein" in self.indexes else "text"
        if content not in self.indexes:
            held = " and ".join(f"{kind}s" for kind in self.indexes) or "nothing"
            raise RequestError(f"no index of {content or 'protein'}s is loaded, which holds {held}.")
        return self.indexes[content]

    def _tokenised(self, question: Question) -> Prepared:
        model = self._model()
        if question.sequence is not None:  # checked when the question was made, as texts are
            ids = model.protein_tokenizer.encode(question.sequence)
            cut = len(question.sequence) > model.max_protein_tokens - 2
            return Prepared(question=question, kind="protein", ids=ids, truncated=cut)
        assert question.text is not None
        (words,) = model.text_tokenizer.encode([question.text])
        cut = len(words) == model.max_text_tokens and model.text_tokenizer.cuts(question.text)
        return Prepared(question=question, kind="text", ids=words, truncated=cut)

    def _look_up(self, accessions: Sequence[str]) -> list[tuple[NDArray[np.float32], Content]]:
        """The vector of each accession, of the index of proteins if it is there."""
        found: dict[str, tuple[NDArray[np.float32], Content]] = {}
        names = list(dict.fromkeys(accessions))
        for content in ("text", "protein"):
            if names and content in self.indexes:
                index = self.indexes[content]
                rows, numbers = index.find("accession", names)
                found |= {
                    names[number]: (vector, content)
                    for vector, number in zip(index.vectors(rows), numbers, strict=True)
                }
        if missing := [accession for accession in accessions if accession not in found]:
            raise NotFoundError(f"accession {missing[0]!r:.80}: the index does not hold it; ask by its sequence.")
        return [found[accession] for accession in accessions]


def fitted(asked: Asked, dimension: int) -> Asked:
    """A question that the model embedded, cut to an index of so many dimensions; given vectors stay as they are."""
    if asked.question.vector is not None or len(asked.vector) <= dimension:
        return asked
    return replace(asked, vector=cut_to(asked.vector, dimension))


def pair_cosines(protein_ND: NDArray[np.float32], text_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each protein with the text at the same place, (n,)."""
    # A float32 sum of squares may end above 1.
    cosines: NDArray[np.float32] = (protein_ND * text_ND).sum(1).clip(-1, 1)
    return cosines


def softmax(logits_NT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each row, (n, T); computed in float64."""
    exp_NT = np.exp(logits_NT.astype(np.float64) - logits_NT.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = (exp_NT / exp_NT.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares
