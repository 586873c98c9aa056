"""Pictures that are made of numbers."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from protclip.errors import ConfigError
from protclip.reporting.plots import check_plot, composition_figure, residue_figure, save

pytest.importorskip("matplotlib", reason="the extra plot")

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("num_residues", [1, 50, 2000])
def test_a_picture_has_a_panel_for_each_series_and_its_residues_from_1(num_residues: int, tmp_path: Path) -> None:
    scores = np.sin(np.arange(num_residues)).astype(np.float32)
    figure = residue_figure("M" * num_residues, {"drop": scores, "weight": scores**2}, title="costs $\\frac$")
    first, second = figure.axes
    assert [first.get_ylabel(), second.get_ylabel(), second.get_xlabel()] == ["drop", "weight", "residue"]
    assert first.get_xlim() == second.get_xlim() == (0.5, num_residues + 0.5)
    values, edges, _ = first.patches[0].get_data()  # type: ignore[attr-defined]
    assert np.array_equal(values, scores)
    assert np.array_equal(edges, np.arange(num_residues + 1) + 0.5)
    ticks = second.get_xticks()
    assert ticks[0] == 1
    assert ticks[-1] <= num_residues
    assert len(ticks) <= 13
    assert len(second.texts) == (num_residues if num_residues <= 80 else 0)
    save(figure, str(tmp_path / "plot.png"))
    data = (tmp_path / "plot.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert width == 1500
    assert height == 810


def test_the_ending_names_the_format(tmp_path: Path) -> None:
    figure = residue_figure("MKV", {"drop": np.ones(3)}, title="")
    for name, start in [("a.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("a.PNG", b"\x89PNG")]:
        check_plot(name)
        save(figure, str(tmp_path / name))
        assert (tmp_path / name).read_bytes().startswith(start)
    for refuse in (check_plot, lambda path: save(figure, path)):
        with pytest.raises(ConfigError, match=r"a\.gif: pictures are written as \.png"):
            refuse("a.gif")


def test_a_long_title_is_cut() -> None:
    title = residue_figure("MKV", {"drop": np.ones(3)}, title="word " * 200).get_suptitle()
    assert title.count("\n") == 2
    assert title.endswith(" …")


def test_a_composition_has_a_bar_for_each_share_and_a_step_for_each_bin(tmp_path: Path) -> None:
    shares = {"R": {"1/4": {"mine": 0.25, "theirs": 0.5}, "2/4": {"mine": 0.75}}, "C": {"1": {"mine": 1.0}}}
    histograms = {"residues": ([40, 60, 95], [7, 0]), "characters": ([0, 1, 4000], [1, 2])}
    figure = composition_figure(shares, histograms, title="costs $\\frac$")
    above, right, residues, characters = figure.axes
    assert [bar.get_height() for bar in above.patches] == [25, 75, 50, 0]  # type: ignore[attr-defined]
    assert [label.get_text() for label in above.get_xticklabels()] == ["1/4", "2/4"]
    assert right.get_ylim() == above.get_ylim()
    values, edges, _ = residues.patches[0].get_data()  # type: ignore[attr-defined]
    assert values.tolist() == [7, 0]
    assert edges.tolist() == [39.5, 59.5, 94.5]
    assert characters.get_xlim() == (0.5, 3999.5)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["mine", "theirs"]
    save(figure, str(tmp_path / "plot.png"))
    # Every axis of lengths has numbers, short or long as the range is.
    for axis in (residues, characters):
        low, high = axis.get_xlim()
        assert sum(low <= tick <= high for tick in axis.get_xticks()) >= 3


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    figure = residue_figure("MKV", {"drop": np.zeros(3)}, title="t")
    with pytest.raises(ConfigError, match=r"x\.png: cannot be written"):
        save(figure, str(tmp_path / ("x" * 300 + ".png")))
