"""One way to ask: against exact search, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from index_folders import FINGERPRINT, unit_vectors, write_embeddings
from tiny_model import random_sequences, random_texts, tiny_model, write_protein_index

from protclip.embeddings.reading import METADATA, read_embeddings
from protclip.errors import CheckpointError, IndexMismatchError, NotFoundError, RequestError
from protclip.hashing import hash64
from protclip.index import subindex
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from protclip.index.exact import exact_search
from protclip.index.filters import parse_filter
from protclip.index.index import NOT_SHOWN, Index
from protclip.pca import plane_of
from protclip.questions import COLUMNS, Answer, Hit, Options, Question
from protclip.retrieval import Retriever

pytestmark = pytest.mark.unit
SEQUENCES, TEXTS = random_sequences(60), random_texts(60, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, an index of proteins in which three rows come twice, and one of texts."""
    folder = tmp_path_factory.mktemp("retrieval")
    model = tiny_model()
    model.save_pretrained(str(folder / "checkpoint"))
    sequences = [*SEQUENCES, *SEQUENCES[:3]]
    hashes = [hash64(sequence) for sequence in sequences]
    write_protein_index(folder, model, sequences, columns={"sequence_hash": pa.array(hashes, pa.uint64())})
    texts = write_embeddings(
        folder / "text-embeddings",
        model.embed_texts(TEXTS),
        content="text",
        fingerprint=model.fingerprint,
        columns={"text": TEXTS},
    )
    build_from(read_embeddings(texts), str(folder / "texts"), IndexConfig())
    return folder


@pytest.fixture(scope="module")
def retriever(folder: Path) -> Retriever:
    return Retriever.load(str(folder / "index"), str(folder / "texts"), checkpoint=str(folder / "checkpoint"))


def accessions(answer: Answer) -> list[str]:
    return [hit["accession"] for hit in answer.hits]


def test_a_hit_has_a_field_for_each_column_and_no_other() -> None:
    assert set(Hit.__annotations__) == {"rank", "score", "percentile", *METADATA.names} - set(NOT_SHOWN)


@pytest.mark.parametrize("where", [None, "reviewed", "length >= 120 and not reviewed", "length > 9999"])
@pytest.mark.parametrize("offset", [0, 4, 500])
@pytest.mark.parametrize("kind", ["text", "sequence", "accession", "vector"])
def test_answers_are_those_of_exact_search(retriever: Retriever, where: str | None, offset: int, kind: str) -> None:
    """In order, score and rank; three rows come twice, so there are ties."""
    index = retriever.indexes["protein"]
    (loaded,) = index.subindexes
    model = retriever.model
    assert model is not None
    vector = {
        "text": model.embed_texts(TEXTS[:1])[0],
        "sequence": model.embed_proteins(SEQUENCES[1:2])[0],
        "accession": model.embed_proteins(SEQUENCES[2:3])[0],
        "vector": unit_vectors(1, dimension=24)[0],
    }[kind]
    question = {"text": TEXTS[0], "sequence": SEQUENCES[1], "accession": "P00002", "vector": 3 * vector}[kind]
    answer = retriever.search(**{kind: question}, k=7, offset=offset, where=where)
    rows = None if where is None else np.flatnonzero(parse_filter(where).mask(loaded.metadata))
    scores, found = exact_search(
        loaded.vectors(np.arange(len(loaded))), vector[None], 1000, rows=rows, tie_break=loaded.by_accession
    )
    names = loaded.metadata["accession"].to_pylist()
    page = slice(offset, offset + 7)
    assert accessions(answer) == [names[row] for row in found[0][page]]
    assert [hit["score"] for hit in answer.hits] == pytest.approx(scores[0][page].tolist(), abs=1e-6)
    assert [hit["rank"] for hit in answer.hits] == list(range(offset + 1, offset + 1 + len(answer.hits)))
    assert (answer.model, answer.index, answer.content) == (model.fingerprint, index.fingerprint, "protein")


@pytest.mark.slow
def test_where_a_graph_answers_it_finds_nearly_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subindex, "EXACT_ROWS", 100)
    monkeypatch.setattr(subindex, "GRAPH_COST", 1)
    vectors, asked = unit_vectors(3_000), unit_vectors(1_000, seed=1)
    embeddings = read_embeddings(write_embeddings(tmp_path / "embeddings", vectors))
    build_from(embeddings, str(tmp_path / "index"), IndexConfig())
    retriever = Retriever.load(str(tmp_path / "index"))
    assert retriever.indexes["protein"].subindexes[0].graph is not None
    questions = [Question(vector=vector) for vector in asked]
    for where in (None, "reviewed"):
        exact = retriever.search_all(questions, Options(exact=True, where=where))
        graph = retriever.search_all(questions, Options(where=where))
        hits = sum(len({*accessions(one)} & {*accessions(other)}) for one, other in zip(exact, graph, strict=True))
        assert hits >= 0.99 * 10 * len(asked)


def test_a_question_is_answered_in_company_as_alone(retriever: Retriever) -> None:
    questions = [
        Question(text=TEXTS[0], name="t"),
        Question(accession="P00005"),
        Question(sequence=SEQUENCES[9]),
        Question(text=TEXTS[1]),
        Question(vector=unit_vectors(1, dimension=24)[0]),
        Question(accession="P00005"),
    ]
    together = retriever.search_all(questions, Options(k=4))
    assert [answer.query for answer in together] == ["t", None, None, None, None, None]
    for question, answer in zip(questions, together, strict=True):
        (alone,) = retriever.search_all([question], Options(k=4))
        assert accessions(answer) == accessions(alone)
        assert [hit["score"] for hit in answer.hits] == pytest.approx([hit["score"] for hit in alone.hits], abs=1e-6)
    assert retriever.search_all([]) == []


def test_the_questions_own_rows_are_left_out(retriever: Retriever) -> None:
    whole = accessions(retriever.search(accession="P00001", k=99))
    assert whole[:2] == ["P00001", "P00061"] and len(whole) == 63
    assert accessions(retriever.search(accession="P00001", k=99, exclude_self=True)) == whole[1:]
    without = accessions(retriever.search(sequence=SEQUENCES[1].lower(), k=61, exclude_self=True))
    assert without == whole[2:]  # both rows of that sequence
    assert accessions(retriever.search(sequence=SEQUENCES[1], k=3, offset=2, exclude_self=True)) == without[2:5]
    named = Question(sequence=SEQUENCES[1][:-1], name="P00007")
    (answer,) = retriever.search_all([named], Options(k=99, exclude_self=True))
    assert len(answer.hits) == 62 and "P00007" not in accessions(answer)
    answer = retriever.search(text=TEXTS[8], k=99, exclude_self=True, content="text")
    assert len(answer.hits) == 59 and "P00008" not in accessions(answer)
    with pytest.raises(RequestError, match="vector without a name"):
        retriever.search(vector=unit_vectors(1, dimension=24)[0], exclude_self=True)


def test_a_lowest_score_and_columns(retriever: Retriever) -> None:
    whole = retriever.search(text=TEXTS[0], k=63)
    limit = whole.hits[10]["score"]
    assert retriever.search(text=TEXTS[0], k=63, min_score=limit).hits == whole.hits[:11]
    reviewed = retriever.search(text=TEXTS[0], where="reviewed").hits
    assert retriever.search(text=TEXTS[0], where=parse_filter("reviewed")).hits == reviewed
    (hit,) = retriever.search(text=TEXTS[0], k=1, columns=["gene", "length"]).hits
    assert list(hit) == ["rank", "score", "percentile", "accession", "length", "gene"]
    assert list(retriever.search(text=TEXTS[0], k=1, columns=[]).hits[0])[3:] == ["accession"]
    assert set(whole.hits[0]) == set(Hit.__annotations__) == {"rank", "score", "percentile", "accession", *COLUMNS}


def test_a_map_is_of_the_hits_that_are_shown(retriever: Retriever) -> None:
    index = retriever.indexes["protein"]
    answer = retriever.search(accession="P00003", k=6, offset=2, map=True)
    vectors = np.concatenate([index.vectors(index.find("accession", [name])[0]) for name in accessions(answer)])
    assert answer.map is not None and np.array(answer.map) == pytest.approx(plane_of(vectors), abs=1e-9)
    assert retriever.search(accession="P00003", k=3, offset=2).map is None
    assert retriever.search(accession="P00003", where="length < 1", map=True).map == []


def test_what_the_model_does_not_see_is_told(retriever: Retriever) -> None:
    """It sees 62 residues, and 30 tokens of a text."""
    for length, cut in ((62, False), (63, True)):
        assert retriever.search(sequence="M" * length).truncated is cut
    tokens = [len(row) for row in retriever.model.text_tokenizer.encode(TEXTS)]  # type: ignore[union-attr]
    for text, number in zip(TEXTS, tokens, strict=True):
        assert retriever.search(text=text).truncated is (number == 32 and len(text.split()) > 30), text
    assert retriever.search(text="ATP " * 30).truncated is False
    assert retriever.search(text="ATP " * 31).truncated is True


def test_percentiles_are_of_the_kind_of_question(retriever: Retriever) -> None:
    """The indexes were built without other questions than their own rows."""
    own = retriever.search(sequence=SEQUENCES[0])
    assert own.hits[0]["percentile"] is not None
    percentiles = retriever.indexes["protein"].percentiles(np.array([own.hits[3]["score"]], np.float32), "protein")
    assert percentiles is not None and own.hits[3]["percentile"] == round(float(percentiles[0]), 2)
    assert retriever.search(text=TEXTS[0]).hits[0]["percentile"] is None
    assert retriever.search(text=TEXTS[0], content="text").hits[0]["percentile"] is not None
    vector = unit_vectors(1, dimension=24)[0]
    assert retriever.search(vector=vector).hits[0]["percentile"] is None
    (answer,) = retriever.search_all([Question(vector=vector, kind="protein")])
    assert answer.hits[0]["percentile"] is not None


def test_one_of_two_indexes_is_asked(retriever: Retriever, folder: Path) -> None:
    assert retriever.search(text=TEXTS[4]).content == "protein"
    answer = retriever.search(text=TEXTS[4], k=1, content="text")
    assert answer.content == "text" and answer.hits[0]["text"] == TEXTS[4]
    texts = Retriever.load(str(folder / "texts"), checkpoint=str(folder / "checkpoint"))
    assert texts.search(sequence=SEQUENCES[0]).content == "text"
    with pytest.raises(RequestError, match="no index of proteins is loaded, which holds texts"):
        texts.search(text="a", content="protein")
    with pytest.raises(RequestError, match="which holds nothing"):
        Retriever.load(checkpoint=str(folder / "checkpoint")).search(text="a")


def test_a_score_is_1_at_most(retriever: Retriever) -> None:
    """Vectors of float32 are of a length beside 1, and a cosine is not."""
    questions = [Question(accession=f"P{i:05d}") for i in range(60)]
    scores = [answer.hits[0]["score"] for answer in retriever.search_all(questions, Options(k=1))]
    assert max(scores) == 1 and min(scores) == pytest.approx(1, abs=1e-6)


def test_scores_and_classes_are_the_models(retriever: Retriever) -> None:
    model = retriever.model
    assert model is not None
    proteins, texts = model.embed_proteins(SEQUENCES[:4]), model.embed_texts(TEXTS[:3])
    np.testing.assert_allclose(retriever.score(SEQUENCES[:3], TEXTS[:3]), (proteins[:3] * texts).sum(1), atol=1e-6)
    shares = retriever.classify(SEQUENCES[:4], TEXTS[:3])
    logits = float(model.model.logit_scale.detach().exp()) * (proteins @ texts.T)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, expected, rtol=1e-4)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    with pytest.raises(RequestError, match="1 sequences and 2 texts make no pairs"):
        retriever.score(SEQUENCES[:1], TEXTS[:2])


def test_accessions_and_vectors_need_no_model(folder: Path) -> None:
    bare = Retriever.load(str(folder / "index"))
    assert accessions(bare.search(accession="P00004", k=1)) == ["P00004"]
    with pytest.raises(RequestError, match="no model is loaded"):
        bare.search(text="a")
    with pytest.raises(NotFoundError, match="accession 'Q1'"):
        bare.search(accession="Q1")


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({}, "holds none"),
        ({"text": "a", "accession": "P1"}, "holds text, accession"),
        ({"text": " "}, "text is empty"),
        ({"text": b"a"}, r"text: is b'a'; a string"),
        ({"accession": ""}, "accession is empty"),
        ({"sequence": "MK7", "name": "mine"}, "sequence 'mine': holds '7' at residue 3"),
        ({"sequence": ""}, "sequence is empty"),
        ({"vector": np.zeros(24)}, "not all 0"),
        ({"vector": np.full(24, np.nan)}, "nan as its largest number"),
        ({"vector": [1, 10**400]}, "no list of numbers"),
        ({"vector": np.ones(24), "kind": "proteins"}, "kind='proteins': allowed are protein and text"),
        ({"text": "a\udcff"}, "text holds half of a surrogate pair at character 2"),
        ({"accession": "\ud800"}, "accession holds half of a surrogate pair"),
        ({"vector": np.ones((2, 24))}, r"shape \(2, 24\)"),
        ({"vector": ["a"]}, "no list of numbers"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_when_it_is_made(question: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Question(**question)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"k": 0}, "k=0: a whole number of 1"),
        ({"k": 2.0}, "k=2.0"),
        ({"k": True}, "k=True"),
        ({"offset": -1}, "offset=-1: a whole number of 0"),
        ({"where": "size > 3"}, "character 1"),
        ({"where": 3}, "where=3: the text of a filter"),
        ({"min_score": 1.01}, "between -1 and 1"),
        ({"min_score": float("nan")}, "between -1 and 1"),
        ({"min_score": "0.5"}, "between -1 and 1"),
        ({"columns": "name"}, "columns='name': a list"),
        ({"columns": ["sequence_hash"]}, "column 'sequence_hash': there is none"),
        ({"content": "proteins"}, "allowed are protein and text"),
    ],
)
def test_an_option_that_cannot_be_is_refused_when_it_is_made(option: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Options(**option)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1e-310, 3e-162, 1.0, 1e300])
def test_a_vector_of_any_length_is_asked_by_its_direction(retriever: Retriever, scale: float) -> None:
    """The squares of its numbers may be beyond any float; of 3e-162 they have lost their digits."""
    vector = unit_vectors(1, dimension=24)[0].astype(np.float64)
    assert accessions(retriever.search(vector=scale * vector)) == accessions(retriever.search(vector=vector))


def test_whole_numbers_of_numpy_are_whole_numbers(retriever: Retriever) -> None:
    answer = retriever.search(accession="P00002", k=np.int64(3), offset=np.int32(1), min_score=np.float32(-1))
    assert json.dumps([hit["rank"] for hit in answer.hits]) == "[2, 3, 4]"


def test_what_does_not_belong_together_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tiny_model(seed=1)
    other.save_pretrained(str(tmp_path / "other"))
    proteins, checkpoint = str(folder / "index"), str(folder / "checkpoint")
    with pytest.raises(IndexMismatchError, match="was made by the model"):
        Retriever.load(proteins, checkpoint=str(tmp_path / "other"))
    with pytest.raises(IndexMismatchError, match="was made by the model"):
        Retriever(other, Index.load(proteins))
    with pytest.raises(IndexMismatchError, match="two indexes of proteins"):
        Retriever.load(proteins, proteins)
    foreign = write_embeddings(tmp_path / "texts", unit_vectors(30, 24), content="text", fingerprint=FINGERPRINT)
    build_from(read_embeddings(foreign), str(tmp_path / "foreign"), IndexConfig())
    with pytest.raises(IndexMismatchError, match="model_fingerprint of the index of proteins"):
        Retriever.load(proteins, str(tmp_path / "foreign"))
    with pytest.raises(CheckpointError):
        Retriever.load(proteins, checkpoint=str(tmp_path))
    with pytest.raises(RequestError, match="has 16 numbers, and those of the index 24"):
        Retriever.load(proteins, checkpoint=checkpoint).search(vector=unit_vectors(1)[0])


ANSWER_EACH = """
import contextlib, io, json, sys
from protclip.__main__ import main
for arguments in json.load(sys.stdin):
    sys.argv[1:], code = arguments, 0
    out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    loaded = sorted({'torch', 'transformers', 'ray'} & set(sys.modules))
    print(json.dumps([code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode(), loaded]))
"""


@pytest.mark.slow
def test_what_can_be_refused_or_answered_without_torch_is(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.fasta").write_text(">one\nMK7\n")
    (tmp_path / "empty.txt").write_text("\n\n")
    cases: dict[tuple[str, ...], str] = {
        ("--sequence", "MK7"): "RequestError: sequence: holds '7' at residue 3",
        ("--text", " "): "RequestError: text is empty",
        ("--text", "a", "--filter", "lenght > 3"): "RequestError: filter",
        ("--text", "a", "--columns", "gene,size"): "RequestError: column 'size'",
        ("--text", "a", "--output", "a.xls"): "ConfigError: output 'a.xls'",
        ("--fasta", "bad.fasta"): "bad.fasta, line 1 (one)",
        ("--texts", "empty.txt"): "RequestError: empty.txt: holds no text",
        ("--accession", "P99999"): "NotFoundError: accession 'P99999'",
        ("--accession", "P00001"): "",
    }
    command = ["search", str(folder / "index"), "--checkpoint", str(folder / "checkpoint")]
    done = subprocess.run(
        [sys.executable, "-c", ANSWER_EACH],
        input=json.dumps([[*command, *arguments] for arguments in cases]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for (arguments, message), line in zip(cases.items(), done.stdout.splitlines(), strict=True):
        code, out, err, loaded = json.loads(line)
        assert loaded == [], arguments
        assert message in err, arguments
        assert code == (1 if message else 0), arguments
        assert ("P00001" in out) is not bool(message), arguments


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"columns": "gene"}, r"columns='gene': a list of names"),
        ({"min_score": "0.5"}, "min_score='0.5'"),
        ({"min_score": float("nan")}, "min_score=nan"),
    ],
)
def test_an_option_of_another_type_is_refused(option: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Options(**option)


def test_counts_of_numpy_are_counts() -> None:
    options = Options(k=np.int64(3), offset=np.int32(1))  # type: ignore[arg-type]
    assert (type(options.k), type(options.offset), options) == (int, int, Options(k=3, offset=1))


def test_a_sequence_is_classified_by_one_text_or_more() -> None:
    with pytest.raises(RequestError, match="no text"):
        Retriever(tiny_model()).classify(["MKV"], [])


def test_questions_are_cut_to_an_index_of_fewer_dimensions(folder: Path, tmp_path: Path) -> None:
    model = tiny_model()
    short = write_protein_index(tmp_path, model, SEQUENCES, dimensions=8)
    retriever = Retriever.load(short, checkpoint=str(folder / "checkpoint"))
    index = retriever.indexes["protein"]
    for question, vector in (
        ({"text": TEXTS[0]}, model.embed_texts(TEXTS[0], dimensions=8)),
        ({"sequence": SEQUENCES[1]}, model.embed_proteins(SEQUENCES[1], dimensions=8)),
    ):
        answer = retriever.search(**question, k=5)
        scores, rows = index.search(vector[None], 5)
        np.testing.assert_allclose([hit["score"] for hit in answer.hits], scores[0], atol=1e-6)
        assert accessions(answer) == [row["accession"] for row in index.rows(rows[0])]
        assert retriever.search(vector=vector, k=5).hits[0]["accession"] == accessions(answer)[0]
    assert accessions(retriever.search(accession="P00003", k=1)) == ["P00003"]
    # Who gives a vector has to know what it is.
    with pytest.raises(RequestError, match="vector: has 24 numbers, and those of the index 8"):
        retriever.search(vector=model.embed_texts(TEXTS[0]))
