"""Every task reads its published files, as rows that are in them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import benchmark_files
import numpy as np
import pytest

from protclip.errors import DataError, MissingDataError
from protclip.evaluation.checks import describe, listing, load
from protclip.evaluation.labelled import AAV_REGION
from protclip.evaluation.task import Benchmark, Task
from protclip.evaluation.tasks import GRAPH, INTERACTIONS, SIMILARITIES, TASKS

pytestmark = pytest.mark.unit

TASK = {task.name: task for task in TASKS}
PLANTED = [
    *("ec", "go_bp", "go_mf", "go_cc", "reaction", "subcellular_localization", "binary_localization"),
    *("beta_lactamase", "aav", "thermostability", "fluorescence", "stability"),
]
METHODS_COUNTS = {"ec": 538, "go_bp": 1943, "go_mf": 489, "go_cc": 320, "reaction": 384}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Benchmark]]:
    folder = tmp_path_factory.mktemp("benchmarks")
    return str(folder), benchmark_files.write_folder(folder, seed=0)


def test_tasks_have_names_of_their_own_and_say_where_their_data_is() -> None:
    assert len({task.name for task in TASKS}) == len(TASKS)
    assert all(task.source and task.licence and task.published and task.title for task in TASKS)


def test_there_are_the_22_benchmarks_of_the_paper_and_the_protocols_of_protst() -> None:
    kinds = Counter(task.kind for task in TASKS if task not in INTERACTIONS)
    assert kinds == {
        **{"labels": 4, "classes": 3, "regression": 5, "graph": 5, "similarity": 3},
        **{"zero-shot": 2, "retrieval": 1},
    }
    assert {task.name.rsplit("_", 1)[0] for task in INTERACTIONS} == {"shs27k", "shs148k"}


def test_label_counts_are_those_of_the_paper() -> None:
    assert {name: TASK[name].num_classes for name in METHODS_COUNTS} == METHODS_COUNTS


def test_every_task_is_read_from_its_published_files(written: tuple[str, dict[str, Benchmark]]) -> None:
    assert {listed.task.name: listed.problem for listed in listing(written[0])} == {task.name: "" for task in TASKS}


@pytest.mark.parametrize("name", PLANTED)
def test_rows_are_those_that_were_written(written: tuple[str, dict[str, Benchmark]], name: str) -> None:
    folder, made = written
    found = load(TASK[name], folder)
    assert found.splits.keys() == made[name].splits.keys()
    for split in found.splits:
        expected = benchmark_files.rows_of(made[name], split)
        assert benchmark_files.rows_of(found, split) == expected, split


@pytest.mark.parametrize("task", GRAPH, ids=lambda task: task.name)
def test_edges_of_a_graph_are_those_that_were_written(written: tuple[str, dict[str, Benchmark]], task: Task) -> None:
    folder, made = written
    found = load(task, folder)

    def edges(benchmark: Benchmark, *splits: str) -> list[tuple[str, str]]:
        rows = [row for split in splits for row in benchmark_files.rows_of(benchmark, split)]
        return sorted((sequence, benchmark.texts[label]) for sequence, label in rows)

    for theirs, ours in ((["test"], ["test"]), (["train"], ["train", "valid"])):
        expected = edges(made[task.name], *theirs)
        got = edges(found, *ours)
        assert [sequence for sequence, _ in got] == [sequence for sequence, _ in expected]
        assert all(text in found_text for (_, text), (_, found_text) in zip(expected, got, strict=True))


@pytest.mark.parametrize("task", GRAPH, ids=lambda task: task.name)
def test_what_is_asked_for_in_a_test_edge_is_in_no_edge_to_train_on(
    written: tuple[str, dict[str, Benchmark]], task: Task
) -> None:
    found = load(task, written[0])

    def heads(split: str) -> set[int]:
        rows = found.splits[split]
        return set((rows.labels if task.query == "text" else rows.proteins_NK[:, 0]).tolist())

    assert heads("train").isdisjoint(heads("test"))
    assert heads("train").isdisjoint(heads("valid"))


def test_the_split_of_a_task_does_not_depend_on_the_order_of_its_files(tmp_path: Path) -> None:
    rows = [f">{place}|beta-lactamase_A{place}C|{place / 10}\n{'MKV' * 9}{'A' * place}" for place in range(40)]
    rows.append(f">40|beta-lactamase_A7A|1.0\n{'MKV' * 12}")  # the wild type again, which is no variant
    splits = []
    for folder, lines in (("one", rows), ("other", rows[::-1])):
        path = tmp_path / folder / "beta_lactamase/P62593.fasta"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines))
        found = TASK["beta_lactamase"].read(str(tmp_path / folder))
        splits.append({split: sorted(benchmark_files.rows_of(found, split)) for split in found.splits})
    assert splits[0] == splits[1]
    assert {split: len(rows) for split, rows in splits[0].items()} == {"train": 32, "valid": 4, "test": 4}


def test_aav_is_the_region_alone(tmp_path: Path) -> None:
    benchmark_files.write_table(
        tmp_path / "aav/two_vs_many.csv",
        ("sequence", "target", "set", "validation"),
        [("A" * 474 + "C" * 200 + "D" * 61, 1.0, "test", "")],
    )
    assert TASK["aav"].read(str(tmp_path)).sequences == ("C" * 200,)
    assert AAV_REGION.stop - AAV_REGION.start == 200


def test_another_split_of_flip_is_named(tmp_path: Path) -> None:
    rows = [("MKV" * 5 + "A" * place, place, "test" if place < 5 else "train") for place in range(25)]
    benchmark_files.write_table(tmp_path / "thermostability/clustered.csv", ("sequence", "target", "set"), rows)
    found = load(TASK["thermostability"], str(tmp_path))
    assert found.note.startswith("another split of FLIP's: clustered.csv instead of human_cell.csv")
    assert {name: len(split.labels) for name, split in found.splits.items()} == {"train": 18, "valid": 2, "test": 5}


@pytest.mark.parametrize("mode", ["random", "bfs", "dfs"])
def test_actions_of_a_pair_are_one_row_whatever_their_direction(tmp_path: Path, mode: str) -> None:
    benchmark_files.write_interactions(tmp_path / "ppi_shs27k", "SHS27k", seed=3)
    path = tmp_path / "ppi_shs27k/protein.actions.SHS27k.STRING.txt"
    header, *lines = path.read_text().splitlines()
    turned = ["\t".join([line.split("\t")[1], line.split("\t")[0], *line.split("\t")[2:]]) for line in lines]
    path.write_text("\n".join([header, *lines, *turned[::3]]))
    expected: dict[tuple[str, ...], set[str]] = {}
    for line in lines:
        a, b, kind, *_ = line.split("\t")
        expected.setdefault(tuple(sorted((a, b))), set()).add(kind)
    found = load(TASK[f"shs27k_{mode}"], str(tmp_path))
    rows = [row for split in found.splits.values() for row in zip(split.proteins_NK, split.labels, strict=True)]
    assert len(rows) == len(expected)
    for proteins, labels in rows:
        pair = tuple(sorted(found.ids[place] for place in proteins))
        assert {name for name, label in zip(found.classes, labels, strict=True) if label} == expected[pair]


@pytest.mark.parametrize(
    ("change", "message"),
    [(("binding", "bonding"), "the mode is 'bonding'"), (("ENSP00000000001\t", "ENSP99\t"), "there is no sequence")],
)
def test_what_is_wrong_with_actions_is_said(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    benchmark_files.write_interactions(tmp_path / "ppi_shs27k", "SHS27k", seed=3)
    path = tmp_path / "ppi_shs27k/protein.actions.SHS27k.STRING.txt"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(DataError, match=message):
        load(TASK["shs27k_random"], str(tmp_path))


def test_a_file_without_rows_to_train_on_is_refused(tmp_path: Path) -> None:
    rows = [("MKV", 1, "test")]
    benchmark_files.write_table(tmp_path / "thermostability/clustered.csv", ("sequence", "target", "set"), rows)
    with pytest.raises(DataError, match="thermostability: has no split 'train'"):
        load(TASK["thermostability"], str(tmp_path))


def test_a_damaged_entry_is_refused(tmp_path: Path) -> None:
    benchmark_files.write_annotated(tmp_path / "go_semantic", 0)
    path = tmp_path / "go_semantic/entries.dat"
    path.write_text(path.read_text().replace("CRC64", "CRC32", 1))
    with pytest.raises(DataError, match=r"entries\.dat, line 1.* mend or remove it"):
        load(TASK["lin_mf"], str(tmp_path))


def test_what_is_not_there_is_named_with_where_it_is_published(tmp_path: Path) -> None:
    for task in TASKS:
        with pytest.raises(MissingDataError) as error:
            load(task, str(tmp_path))
        assert str(tmp_path) in str(error.value)
        assert task.source in str(error.value) and task.licence in str(error.value)
        assert describe(task, str(tmp_path)).state == "missing"


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    benchmark_files.write_json_lines(tmp_path / "stability", benchmark_files.planted("regression", 0))
    (tmp_path / "stability/valid.json").unlink()
    with pytest.raises(MissingDataError, match=r"stability/valid\.csv: is not there, nor is stability/valid\.json"):
        load(TASK["stability"], str(tmp_path))


@pytest.mark.parametrize(
    ("label", "message"),
    [("x", "the label is 'x'; it must be a number"), ("nan", "labels are no finite numbers; the first is nan")],
)
def test_a_label_that_is_no_number_is_named_with_its_place(tmp_path: Path, label: str, message: str) -> None:
    for split, value in (("train", "1"), ("valid", "2"), ("test", label)):
        rows = [("MKV" + split.upper().replace("A", "C").replace("D", "E"), value)]
        benchmark_files.write_table(tmp_path / f"fluorescence/{split}.csv", ("seq", "label"), rows)
    with pytest.raises(DataError, match=message):
        load(TASK["fluorescence"], str(tmp_path))


def test_a_class_beyond_the_last_one_is_named_with_its_place(tmp_path: Path) -> None:
    benchmark_files.write_table(tmp_path / "binary_localization/train.csv", ("seq", "label"), [("MKV", 2)])
    with pytest.raises(DataError, match=r"train\.csv, line 2: the class is '2'; it must be a whole number from 0 to 1"):
        load(TASK["binary_localization"], str(tmp_path))


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    planted = benchmark_files.planted("labels", 0, num_classes=537)
    benchmark_files.write_deepfri(tmp_path / "ec_go/nrPDB-EC_2020.04", {"EC-numbers": planted})
    with pytest.raises(DataError, match="ec: has 537 classes; the published data has 538"):
        load(TASK["ec"], str(tmp_path))


def test_chains_without_a_sequence_are_left_out_and_counted(tmp_path: Path) -> None:
    planted = benchmark_files.planted("labels", 0, num_classes=538)
    stem = tmp_path / "ec_go/nrPDB-EC_2020.04"
    benchmark_files.write_deepfri(stem, {"EC-numbers": planted})
    fasta = Path(f"{stem}_sequences.fasta")
    fasta.write_text(fasta.read_text().split(">", 11)[-1].join([">", ""]))  # without the first ten
    found = load(TASK["ec"], str(tmp_path))
    assert len(found.splits["train"].labels) == benchmark_files.SIZES["train"] - 10
    assert "train: 86 rows where 15,551 were published" in found.note


def test_hashes_tell_what_was_read(written: tuple[str, dict[str, Benchmark]], tmp_path: Path) -> None:
    benchmark_files.write_folder(tmp_path, seed=0)
    other = tmp_path / "aav/two_vs_many.csv"
    other.write_text(other.read_text().replace("0.", "0.0", 1))
    ours, theirs = ({listed.task.name: listed.sha256 for listed in listing(str(f))} for f in (written[0], tmp_path))
    lmdb = {"beta_lactamase", "fluorescence", "stability", "binary_localization", "reaction", "reaction_zero_shot"}
    assert {name for name in ours if ours[name] != theirs[name]} - lmdb == {"aav"}


@pytest.mark.slow
def test_the_real_files_are_what_is_known_of_them(real_data: Path) -> None:
    folder = str(real_data / "benchmarks")
    slow = ("fluorescence", "stability", "go_mf_retrieval")
    quick = [task for task in TASKS if task not in SIMILARITIES and task.name not in slow]
    rows = {listed.task.name: dict(listed.rows) for listed in (describe(task, folder) for task in quick) if listed.rows}
    assert rows == {
        "ec": {"train": 2286, "valid": 249, "test": 1919},
        "reaction": {"train": 1436, "valid": 119, "test": 230},
        "subcellular_localization": {"train": 3265, "valid": 816, "test": 2773},
        "binary_localization": {"train": 5184, "valid": 1729, "test": 1749},
        "beta_lactamase": {"train": 4158, "valid": 520, "test": 520},
        "thermostability": {"train": 2646, "valid": 294, "test": 1504},
        "shs27k_random": {"train": 5338, "valid": 762, "test": 1524},
        "shs27k_bfs": {"train": 5335, "valid": 762, "test": 1527},
        "shs27k_dfs": {"train": 5337, "valid": 762, "test": 1525},
        "subcellular_zero_shot": {"train": 3265, "valid": 816, "test": 2773},
        "reaction_zero_shot": {"train": 1436, "valid": 119, "test": 230},
    }


@pytest.mark.slow
def test_the_large_real_files_are_what_is_known_of_them(real_data: Path) -> None:
    folder = str(real_data / "benchmarks")
    fluorescence = load(TASK["fluorescence"], folder)
    assert {name: len(split.labels) for name, split in fluorescence.splits.items()} == {
        **{"train": 21446, "valid": 5362, "test": 27217},
    }
    assert fluorescence.note == ""
    assert load(TASK["stability"], folder).note == "26 of 12,851 rows of test are in train too"
    assert len(load(TASK["go_mf_retrieval"], folder).splits["test"].labels) == 856
    for task in SIMILARITIES:
        found = load(task, folder).splits["test"]
        assert len(found.labels) == 20_000 and np.all((found.labels >= 0) & (found.labels <= 1))
        assert np.all(found.proteins_NK[:, 0] != found.proteins_NK[:, 1])
