"""All tasks (METHOD.md §6), and what is known about their data."""

from __future__ import annotations

from functools import partial

from protclip.evaluation import labelled
from protclip.evaluation.task import Task

_PEER = "PEER's LMDB (https://github.com/DeepGraphLearning/PEER_Benchmark)"
_FLIP = "FLIP's CSV (https://github.com/J-SNACKKB/FLIP, splits/"
_UNSTATED = "not stated where it is published"

# Of regressions the best epoch is that of the least absolute error (the authors' downstream_config.yaml).
MUTATIONS = (
    Task(
        name="beta_lactamase",
        title="β-lactamase activity",
        kind="regression",
        metric="spearman",
        read=labelled.read_beta_lactamase,
        published="4,158 / 520 / 520 single substitutions of TEM-1",
        source=f"{_PEER}: beta_lactamase_{{train,valid,test}}.lmdb, scaled_effect1; ESM's P62593.fasta has no splits",
        licence="MIT (ESM's file)",
        select_by="mae",
    ),
    Task(
        name="aav",
        title="AAV packaging (FLIP two_vs_many)",
        kind="regression",
        metric="spearman",
        read=labelled.read_aav,
        published="31,807 to train, part of them for validation, and 50,776 to test; residues 474–674 alone",
        source=f"{_FLIP}aav/splits.zip: two_vs_many.csv)",
        licence="AFL-3.0",
        select_by="mae",
    ),
    Task(
        name="thermostability",
        title="Thermostability (FLIP human_cell)",
        kind="regression",
        metric="spearman",
        read=labelled.read_thermostability,
        published="5,792 to train, part of them for validation, and 1,366 to test",
        source=f"{_FLIP}meltome/splits.zip: human_cell.csv)",
        licence="AFL-3.0",
        select_by="mae",
    ),
    Task(
        name="fluorescence",
        title="Fluorescence of GFP",
        kind="regression",
        metric="spearman",
        read=partial(labelled.read_numbers, name="fluorescence", published=labelled.FLUORESCENCE),
        published="21,446 / 5,362 / 27,217; train and valid have at most 3 substitutions, test 4 or more",
        source="TAPE's LMDB (https://github.com/songlab-cal/tape): fluorescence_{train,valid,test}.lmdb",
        licence="BSD-3-Clause (TAPE)",
        select_by="mae",
    ),
    Task(
        name="stability",
        title="Stability of small proteins",
        kind="regression",
        metric="spearman",
        read=partial(labelled.read_numbers, name="stability", published=labelled.STABILITY),
        published="53,614 / 2,512 / 12,851",
        source="TAPE's LMDB (https://github.com/songlab-cal/tape): stability_{train,valid,test}.lmdb",
        licence="BSD-3-Clause (TAPE)",
        select_by="mae",
    ),
)

LOCATIONS = (
    Task(
        name="subcellular_localization",
        title="Subcellular localisation (10)",
        kind="classes",
        metric="accuracy",
        read=labelled.read_subcellular,
        published="8,945 / 2,248 / 2,768; DeepLoc's proteins",
        source=f"{_PEER}: subcellular_localization_{{train,valid,test}}.lmdb",
        licence=_UNSTATED,
    ),
    Task(
        name="binary_localization",
        title="Binary localisation (membrane-bound or soluble)",
        kind="classes",
        metric="accuracy",
        read=partial(
            labelled.read_classes,
            name="binary_localization",
            classes=labelled.MEMBRANE,
            published=labelled.BINARY,
            lmdb="subcellular_localization_2/subcellular_localization_2",
        ),
        published="5,161 / 1,727 / 1,746; DeepLoc's proteins",
        source=f"{_PEER}: subcellular_localization_2_{{train,valid,test}}.lmdb",
        licence=_UNSTATED,
    ),
)

TASKS: tuple[Task, ...] = (*LOCATIONS, *MUTATIONS)
