"""The page in a real browser, over a real replica.

Chromium is the machine's own (Debian: chromium); axe-core comes by ``npm install --no-save axe-core`` in the folder of
the project. What is absent is skipped. PROTCLIP_SCREENSHOTS names a folder that keeps what the browser showed.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn
from index_folders import write_embeddings
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright
from ports import free_port
from tiny_model import random_sequences, random_texts, tiny_model, write_protein_index

from protclip.config import ObjectivesConfig
from protclip.embeddings.reading import read_embeddings
from protclip.index.build import build_from
from protclip.index.config import IndexConfig
from serve.api import make_api
from serve.deployments import Replica
from serve.guard import guard
from serve.keys import new_key
from serve.settings import AppArgs

pytestmark = pytest.mark.serve
AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
QUESTION = "FUNCTION: Catalyzes the hydrolysis of ATP."
HOSTILE = '<img src=x onerror="document.title=1">'
COUNT = 60
UNKNOWN = "P00009"
"""Its sequence, which is longer than the model sees, the server does not know."""
expect.set_options(timeout=30_000)


@dataclass(kw_only=True)
class Site:
    """One address of the replica."""

    url: str
    server: uvicorn.Server
    keys: dict[str, str] = field(default_factory=dict)
    """Name → key."""
    sequences: list[str] = field(default_factory=list)

    def search(self, **body: Any) -> Any:
        return self.post("/v1/search", body)

    def explain(self, **body: Any) -> Any:
        return self.post("/v1/explain", body)

    def post(self, route: str, body: Any) -> Any:
        answer = requests.post(self.url + route, json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Site]]:
    """One replica at three addresses: ``open``, ``keyed``, and ``dying``, which a test may stop."""
    folder = tmp_path_factory.mktemp("page")
    model, sequences = tiny_model(objectives=ObjectivesConfig(mlm=0.0, bsr=0.0)), random_sequences(COUNT)
    model.save_pretrained(str(folder / "checkpoint"))
    human = [i % 3 != 0 for i in range(COUNT)]
    columns = {
        "name": [HOSTILE, None] + [f"Kinase {i}" for i in range(2, COUNT)],
        "gene": [[f"gen{i}", f"alias{i}"] if i % 5 else None for i in range(COUNT)],
        "organism": ["Homo sapiens (Human)" if one else "Escherichia coli (strain K12)" for one in human],
        "organism_id": [9606 if one else 83333 for one in human],
        "length": [len(sequence) for sequence in sequences],
        "ec": [["2.7.11.1", "3.6.1.3"] if i % 2 else [] for i in range(COUNT)],
    }
    index = write_protein_index(folder, model, sequences, columns)
    texts = random_texts(12)
    write_embeddings(
        folder / "texts",
        model.embed_texts(texts),
        content="text",
        fingerprint=model.fingerprint,
        columns={"text": texts},
        settings={"dtype": "float32"},
    )
    build_from(read_embeddings(str(folder / "texts")), str(folder / "index-of-texts"), IndexConfig())
    fasta = folder / "sequences.fasta"
    fasta.write_text("".join(f">P{i:05d}\n{sequences[i]}\n" for i in range(COUNT) if i != 9))
    args = AppArgs(checkpoint=str(folder / "checkpoint"), keys="none", sequences=str(fasta))
    replica = Replica(args, model.fingerprint)
    names = {"quick": 1000.0, "slow": 0.25}
    made = {name: new_key(name, rate=rate) for name, rate in names.items()}
    (folder / "keys").write_text("\n".join(line for _, line in made.values()))
    keyed = args.model_copy(update={"keys": str(folder / "keys")})
    api = make_api(replica, args.limits, stuck_after_s=60)
    found = {}
    for name, settings in (("open", args), ("keyed", keyed), ("dying", args)):
        port = free_port()
        config = uvicorn.Config(guard(api, settings), host="127.0.0.1", port=port, log_level="warning", lifespan="off")
        keys = {one: key for one, (key, _) in made.items()} if name == "keyed" else {}
        found[name] = Site(
            url=f"http://127.0.0.1:{port}", server=uvicorn.Server(config), keys=keys, sequences=sequences
        )

    async def run() -> None:
        await replica.reconfigure({"indexes": {"default": index, "texts": str(folder / "index-of-texts")}})
        # In one event loop, since the replica's queues belong to one.
        await asyncio.gather(*(site.server.serve() for site in found.values()))

    thread = threading.Thread(target=asyncio.run, args=[run()], daemon=True)
    thread.start()
    while not all(site.server.started for site in found.values()):
        assert thread.is_alive()
        thread.join(0.05)
    yield found
    for site in found.values():
        site.server.should_exit = site.server.force_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine; Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        # Its own sandbox does not start for root, as whom containers run.
        yield playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)


@dataclass(kw_only=True)
class Seen:
    """What went wrong in the browser, and what it asked for."""

    errors: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def new_window(browser: Browser, seen: Seen) -> Iterator[Callable[..., BrowserContext]]:
    """Makes windows that share nothing; none of them may fail, or leave the loopback."""
    windows = []

    def new(**options: Any) -> BrowserContext:
        window = browser.new_context(viewport={"width": 1440, "height": 900}, **options)
        window.set_default_timeout(30_000)
        window.on("request", lambda request: seen.addresses.append(request.url))
        window.on("weberror", lambda error: seen.errors.append(str(error.error)))
        window.on("console", lambda message: message.type == "error" and seen.errors.append(message.text))
        windows.append(window)
        return window

    yield new
    for window in windows:
        window.close()
    assert seen.addresses and all(re.match(r"http://127\.0\.0\.1:\d+/|blob:", url) for url in seen.addresses)
    # Chromium reports each status above 399 in the console.
    assert [error for error in seen.errors if "status of" not in error and "ERR_CONNECTION_REFUSED" not in error] == []


@pytest.fixture
def page(new_window: Callable[..., BrowserContext], sites: dict[str, Site]) -> Page:
    """The page at the open address."""
    page = new_window(color_scheme="light").new_page()
    page.goto(sites["open"].url)
    return page


@pytest.fixture(scope="module")
def shot(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Page, str], None]:
    named = os.environ.get("PROTCLIP_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")

    def take(page: Page, name: str) -> None:
        page.screenshot(path=folder / f"{name}.png")

    return take


def ask(page: Page, question: str) -> None:
    page.get_by_label("Function, accession, sequence or FASTA").fill(question)
    page.keyboard.press("Enter")
    expect(page.locator("#results")).to_be_visible()
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")


def column(page: Page, name: str) -> list[str]:
    return page.locator(f"#rows td.{name}").all_inner_texts()


def accessions(page: Page) -> list[str]:
    return [re.findall(r"\w+", text)[0] for text in column(page, "accession")]


def check_accessible(page: Page) -> None:
    """No serious or critical finding of axe-core, in light and in dark."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.evaluate(AXE.read_text())
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert len(found["passes"]) > 10  # it looked
        bad = [
            (one["id"], [(node["target"], node["failureSummary"]) for node in one["nodes"]])
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert bad == [], scheme
    page.emulate_media(color_scheme="light")


def test_a_weak_model_is_called_so(page):
    describe = "(info) => import('/web/quality.js').then((quality) => quality.describeQuality(info))"
    valid = {"text_to_protein": {"recall@10": 0.25}, "chance": {"recall@10": 0.08}, "num_proteins": 122}
    model = {"fingerprint": "c" * 64, "metrics": {"valid": valid}}
    index = {"count": 1, "content": "protein", "recall_at_10": None}
    for is_weak in (True, False):
        told = page.evaluate(
            describe, {"model": {**model, "quality": {"is_weak": is_weak, "num_train_pairs": 1094}}, "index": index}
        )
        assert told.startswith("Model cccccccc, trained on 1,094 pairs: for 25.0 %")
        assert "for 25.0 % of texts the right one of 122 held-out proteins is among its first 10" in told
        assert ("It is a weak model, for trials alone." in told) == is_weak


def test_a_function_is_asked_and_answered(page, sites, shot):
    expect(page.locator("#quality")).to_contain_text("how good it is was not measured")
    expect(page.get_by_label("Function, accession, sequence or FASTA")).to_be_focused()
    shot(page, "start")
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator("#rows tr")).to_have_count(25)
    hits = sites["open"].search(text=QUESTION, k=25)["hits"]
    assert accessions(page) == [hit["accession"] for hit in hits]
    assert column(page, "score") == [f"{hit['score']:.4f}".replace("-", "−") for hit in hits]
    assert column(page, "length") == [str(hit["length"]) for hit in hits]
    assert column(page, "gene") == [hit["gene"][0] if hit["gene"] else "–" for hit in hits]
    assert column(page, "ec") == [", ".join(hit["ec"]) or "–" for hit in hits]
    link = page.locator("#rows td.accession a").first
    assert link.get_attribute("href") == f"https://www.uniprot.org/uniprotkb/{hits[0]['accession']}/entry"
    assert page.locator("#plot circle").count() == 25
    shot(page, "hits")
    page.get_by_label("Next page").click()
    expect(page.locator("#count")).to_contain_text("Ranks 26–50 of 60")
    assert accessions(page) == [
        hit["accession"] for hit in sites["open"].search(text=QUESTION, k=25, offset=25)["hits"]
    ]


def test_hits_are_sorted_filtered_and_walked_through_by_the_keyboard(page, sites, shot):
    ask(page, QUESTION)
    for name, key in (("Length", "length"), ("Name", "name")):
        heading = page.get_by_role("columnheader", name=name)
        heading.get_by_role("button").click()
        expect(heading).to_have_attribute("aria-sort", "ascending")
        first = column(page, key)
        heading.get_by_role("button").click()
        expect(heading).to_have_attribute("aria-sort", "descending")
        known = [value for value in first if not value.startswith("–")]
        assert column(page, key) != first and sorted(column(page, key)) == sorted(first)
        if key == "length":
            assert [int(value) for value in first] == sorted(map(int, first))
            assert column(page, key) == [str(value) for value in sorted(map(int, first), reverse=True)]
        assert first[len(known) :] == column(page, key)[len(known) :]  # what is not known stands last
    page.locator("#filters summary").click()
    page.get_by_label("Organism id").fill("83333")
    page.get_by_label("Reviewed").select_option("Swiss-Prot")
    page.get_by_label("Length from").fill("20")
    written = "organism_id = 83333 and reviewed = true and length >= 20"
    expect(page.get_by_label("As text")).to_have_value(written)
    shot(page, "filter")
    page.get_by_label("As text").fill(f"{written} and length < 80")
    expect(page.get_by_label("Organism id")).to_have_value("83333")
    page.keyboard.press("Enter")
    wanted = sites["open"].search(text=QUESTION, k=25, filter=f"{written} and length < 80")["hits"]
    expect(page.locator("#rows tr")).to_have_count(len(wanted))
    assert accessions(page) == [hit["accession"] for hit in wanted] and len(wanted) > 3
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.get_by_label("Function, accession, sequence or FASTA")).to_be_focused()
    page.locator("#rows .open").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#rows .open").nth(2)).to_be_focused()
    assert page.locator("#plot circle.pointed").count() == 1
    page.keyboard.press("Enter")
    expect(page.locator("#rows .panel")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#rows .panel")).to_have_count(0)
    expect(page.locator("#rows .open").nth(2)).to_be_focused()


def test_a_point_of_the_map_and_its_row_go_together(page):
    ask(page, QUESTION)
    page.locator("#plot circle").last.hover()  # the best is drawn last
    expect(page.locator("#rows tr").first).to_have_class("pointed")
    page.locator("#rows tr").nth(4).hover()
    expect(page.locator("#plot circle.pointed title")).to_contain_text("5. ")


def check_residues(page: Page, explanation: Any, method: str = "occlusion") -> None:
    """The letters of the open hit have the colours of these numbers."""
    values = explanation[method]
    top = max(map(abs, values))
    levels = [int(4 * abs(value / top) + 0.5) for value in values]
    expected = [
        [letter, "none" if not level else f"{'for' if value > 0 else 'against'}-{level}"]
        for letter, level, value in zip(explanation["residues"], levels, values, strict=True)
    ]
    page.wait_for_function(
        """(expected) => JSON.stringify([...document.querySelectorAll(".letters > span")].map(
            (letter) => [letter.textContent, letter.className])) === JSON.stringify(expected)""",
        arg=expected,
    )


def test_the_residues_of_a_hit_are_coloured_by_the_questions_function(page, new_window, sites, shot):
    site = sites["open"]
    ask(page, QUESTION)
    hit = next(hit for hit in site.search(text=QUESTION, k=25)["hits"] if 30 < hit["length"] < 62)
    page.locator("#rows tr", has_text=hit["accession"]).locator(".open").click()
    explanation = site.explain(text=QUESTION, accession=hit["accession"])
    check_residues(page, explanation)
    strongest = max(range(len(explanation["occlusion"])), key=lambda i: explanation["occlusion"][i])
    expect(page.locator(".summary")).to_contain_text(f"{explanation['occlusion'][strongest]:+.4f}")
    page.locator(f".letters > span[data-i='{strongest}']").hover()
    said = f"{explanation['residues'][strongest]}{strongest + 1}  {explanation['occlusion'][strongest]:+.4f}"
    expect(page.locator(".readout")).to_have_text(said)
    shot(page, "residues")
    page.get_by_role("button", name="Segment").click()
    check_residues(page, explanation, "segments")
    page.get_by_label("Function to explain").fill("binds the membrane")
    page.keyboard.press("Enter")
    other = site.explain(text="binds the membrane", accession=hit["accession"])
    check_residues(page, other)
    window = new_window(color_scheme="dark").new_page()
    window.goto(page.url)
    check_residues(window, other)
    shot(window, "residues-dark")


def test_where_the_sequence_is_not_known_it_is_asked_for(page, sites, shot):
    site = sites["open"]
    ask(page, UNKNOWN)
    page.locator("#rows .open").first.click()
    # The question is no function, so that one is typed.
    expect(page.get_by_label("Function to explain")).to_be_focused()
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".explained")).to_contain_text(f"The server does not know the sequence of {UNKNOWN}.")
    shot(page, "paste")
    sequence = site.sequences[9]
    page.get_by_label(f"Sequence of {UNKNOWN}").fill(f">{UNKNOWN}\n{sequence}\n")
    page.get_by_role("button", name="Use this sequence").click()
    check_residues(page, site.explain(text=QUESTION, sequence=sequence))
    expect(page.locator(".explained")).to_contain_text(f"The model sees the first 62 of {len(sequence)} residues.")


def test_fasta_has_the_sequences_that_are_known(page, sites):
    ask(page, QUESTION)
    page.locator("#amount").select_option("100")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#rows tr")).to_have_count(COUNT)
    records = [record.partition("\n") for record in f"\n{download(page, 'FASTA')}".split("\n>")[1:]]
    hits = {hit["accession"]: hit for hit in sites["open"].search(text=QUESTION, k=COUNT)["hits"]}
    assert [head.split()[0] for head, _, _ in records] == [name for name in hits if name != UNKNOWN]
    for head, _, letters in records:
        hit = hits[head.split()[0]]
        assert letters.replace("\n", "") == sites["open"].sequences[int(hit["accession"][1:])]
        assert (
            f"rank={hit['rank']} " in head and json.dumps(QUESTION) in head and " index=" in head and " date=" in head
        )
    expect(page.locator("#note")).to_have_text(f"Without 1 whose sequence the server does not know: {UNKNOWN}.")


def test_the_kind_of_a_question_is_told_by_its_form(page):
    kinds = {
        "kinase": "text",
        "ATP BINDING PROTEIN OF THE MEMBRANE": "text",
        "FUNCTION: Hydrolyses ATP.": "text",
        "P69905": "accession",
        " a0a024r1r8 ": "accession",
        "P12345-2": "accession",
        "MKTAYIAKQRQISFVKSHFSRQ": "sequence",
        "MKTAYIAKQR QISFVKSHFS RQ": "sequence",
        "MKTAYIAKQRQISFVK\nSHFSRQ*": "sequence",
        "mktayiakqrqisfvkshfsrqleerlglievq": "sequence",
        ">one\nMKT": "fasta",
    }
    told = page.evaluate(
        "async (texts) => { const {kindOf} = await import('./web/question.js'); return texts.map(kindOf); }",
        list(kinds),
    )
    assert dict(zip(kinds, told, strict=True)) == kinds
    records = page.evaluate(
        "async (text) => (await import('./web/question.js')).readFasta(text)",
        ">sp|P69905|HBA_HUMAN Hemoglobin\nMVLS\r\nPADK\n\n>two words\nMKT\n>\nMM",
    )
    assert records == [
        {"name": "P69905", "sequence": "MVLSPADK"},
        {"name": "two", "sequence": "MKT"},
        {"name": "record 3", "sequence": "MM"},
    ]


def test_the_filters_text_and_its_fields_say_the_same(page):
    read = "async (text) => (await import('./web/filter.js')).readFilter(text)"
    write = "async (fields) => (await import('./web/filter.js')).writeFilter(fields)"
    fields = {"rest": "", "organism": "9606", "reviewed": "true", "shortest": "10", "longest": "90", "ec": "3.6.1"}
    text = "organism_id = 9606 and reviewed = true and length >= 10 and length <= 90 and ec = 3.6.1"
    assert page.evaluate(write, fields) == text and page.evaluate(read, text) == fields
    assert page.evaluate(read, "reviewed AND length>=5") == {"rest": "", "reviewed": "true", "shortest": "5"}
    either = 'gene = "a and b" or ec = 1'
    assert page.evaluate(read, either) == {"rest": either}
    assert page.evaluate(write, {"rest": either, "ec": "2"}) == f"({either}) and ec = 2"
    assert page.evaluate(write, {"rest": f"({either})", "ec": "2"}) == f"({either}) and ec = 2"


def test_an_accession_a_sequence_and_fasta_are_asked(page, sites):
    site = sites["open"]
    ask(page, "P00007")
    assert accessions(page)[0] == "P00007" and column(page, "score")[0] == "1.0000"
    page.get_by_label("Without the protein itself").check()
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#rows tr").first).not_to_contain_text("P00007")
    page.get_by_label("Without the protein itself").uncheck()
    ask(page, site.sequences[9])
    assert page.get_by_label("Sequence", exact=True).is_checked() and accessions(page)[0] == "P00009"
    ask(page, "".join(f">s{i}\n{site.sequences[i]}\n" for i in (3, 5)))
    expect(page.locator("#answer option")).to_have_count(2)
    assert accessions(page)[0] == "P00003"
    page.locator("#answer").select_option(index=1)
    expect(page.locator("#rows tr").first).to_contain_text("P00005")
    # What the page takes for one thing may be another.
    page.get_by_label("Function, accession, sequence or FASTA").fill("P00007")
    page.get_by_text("Text", exact=True).click()
    expect(page.locator("#told")).to_have_text("as you chose")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#questions")).to_be_hidden()
    assert accessions(page) == [hit["accession"] for hit in site.search(text="P00007", k=25)["hits"]]


def test_another_index_is_asked_by_its_name(page, sites, new_window):
    ask(page, QUESTION)
    page.get_by_label("Index").select_option("texts")
    expect(page.locator("#quality")).to_contain_text("Index of 12 texts")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#count")).to_have_text("Ranks 1–12 of 12 texts")
    hits = sites["open"].search(text=QUESTION, k=12, index="texts")["hits"]
    assert page.locator("#rows .biotext").all_inner_texts() == [hit["text"] for hit in hits]
    other = new_window().new_page()
    other.goto(page.url)
    expect(other.locator("#count")).to_have_text("Ranks 1–12 of 12 texts")
    page.go_back()
    expect(page.locator("#count")).to_have_text("Ranks 1–25 of 60 proteins")


def test_data_is_never_html(page, shot):
    ask(page, f">{HOSTILE}\n{'MKTAYIAKQR'}\n>two\nMKTAYI")
    page.locator("#amount").select_option("100")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#rows tr")).to_have_count(COUNT)
    expect(page.locator("#rows")).to_contain_text(HOSTILE)
    expect(page.locator("#answer option").first).to_contain_text("<img")
    page.get_by_text("Recent", exact=True).click()
    expect(page.locator("#recent")).to_contain_text(HOSTILE)
    ask(page, HOSTILE)
    assert page.locator("img, iframe, object, #rows script").count() == 0
    assert page.title() == f"{HOSTILE} · ProtCLIP"
    shot(page, "hostile")


def download(page: Page, name: str) -> str:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=name, exact=True).click()
    assert re.fullmatch(rf"protclip-\d{{8}}T\d{{6}}\.{name.lower()}", waiting.value.suggested_filename)
    return Path(waiting.value.path()).read_text()


def test_what_another_version_kept_in_the_browser_harms_nothing(new_window, sites):
    asked = {"question": "old", "kind": "text", "filter": "", "rows": 10, "offset": 0, "answer": 0}
    for kept, shown in (("{}", 1), ('"text"', 1), (json.dumps([None, 7, {"question": "older"}, asked]), 2)):
        window = new_window()
        page = window.new_page()
        page.goto(sites["open"].url)
        page.evaluate("kept => localStorage.setItem('protclip-recent', kept)", kept)
        page.evaluate("localStorage.setItem('protclip-theme', 'sepia'); history.replaceState({question: 7}, '')")
        page.reload()
        expect(page.get_by_role("button", name="Colours")).to_have_text("◐ Auto")
        ask(page, QUESTION)
        expect(page.locator("#count")).to_contain_text("Ranks 1–25")
        page.get_by_text("Recent", exact=True).click()
        expect(page.locator("#recent button:not(.clear)")).to_have_count(shown)


@pytest.mark.parametrize("how", ["get() { throw new DOMException('denied', 'SecurityError'); }", "value: FULL"])
def test_a_browser_that_keeps_nothing_is_enough(new_window, sites, how):
    window = new_window()
    full = "{getItem: () => null, removeItem() {}, setItem() { throw new DOMException('', 'QuotaExceededError'); }}"
    for area in ("localStorage", "sessionStorage"):
        window.add_init_script(f"Object.defineProperty(window, '{area}', {{{how.replace('FULL', full)}}})")
    page = window.new_page()
    page.goto(sites["keyed"].url)
    page.get_by_label("Key", exact=True).fill(sites["keyed"].keys["quick"])
    page.keyboard.press("Enter")
    expect(page.locator("#quality")).to_contain_text("Index of 60 proteins")
    ask(page, QUESTION)
    expect(page.locator("#count")).to_contain_text("Ranks 1–25")
    page.get_by_role("button", name="Colours").click()
    page.get_by_text("Recent", exact=True).click()
    expect(page.locator("#recent")).to_contain_text("Nothing asked yet")


def test_what_no_head_of_a_request_can_carry_is_not_taken_for_a_key(new_window, sites):
    page = new_window().new_page()
    page.goto(sites["keyed"].url)
    key = page.get_by_label("Key", exact=True)
    for typed in ("ключ", "two words", "  "):
        key.fill(typed)
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text("ASCII characters alone")
    key.fill(sites["keyed"].keys["quick"])
    page.keyboard.press("Enter")
    expect(page.locator("#quality")).to_contain_text("Index of 60 proteins")


HIT = {"rank": 1, "score": 0.5, "percentile": 9.0, "accession": "P00001", "name": "n", "organism": None, "length": 3}
HIT |= {"organism_id": None, "reviewed": None, "ec": None, "gene": None, "text": None}
ANSWER = {"model": "m", "index": "i", "content": "protein", "query": None, "truncated": False, "map": None}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("null", "none of a ProtCLIP server"),
        ("<html>", "none of a ProtCLIP server"),
        (json.dumps(ANSWER | {"hits": [HIT]})[:-9], "none of a ProtCLIP server"),
        ("{}", "another form"),
        ('{"answers": []}', "another form"),
        (json.dumps(ANSWER | {"hits": [HIT | {"score": None}]}), "another form"),
        (json.dumps({name: ANSWER[name] for name in ANSWER if name != "map"} | {"hits": [HIT] * 3}), "another form"),
    ],
)
def test_an_answer_that_is_none_is_told(page, body, told):
    page.route("**/v1/search", lambda route: route.fulfill(body=body, content_type="application/json"))
    page.get_by_label("Function, accession, sequence or FASTA").fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text(told)
    expect(page.locator("#results")).to_be_hidden()
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#rows tr")).to_have_count(25)


def test_long_runs_of_spaces_are_read_at_once(page):
    read = """async (spaces) => {
      const {kindOf} = await import('./web/question.js');
      const {readFilter} = await import('./web/filter.js');
      return [kindOf(`a${spaces}!`), kindOf(`MKTAYIAKQR${spaces}QISFVKSHFS *`), readFilter(`a${spaces}b`).rest];
    }"""
    page.set_default_timeout(0)
    assert page.evaluate(read, " " * 1_000_000) == ["text", "sequence", "a b"]


def test_what_is_said_of_the_index_is_of_the_one_that_is_asked(page, new_window, sites):
    ask(page, QUESTION)
    page.get_by_label("Index").select_option("texts")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#count")).to_contain_text("of 12 texts")
    page.go_back()
    expect(page.locator("#count")).to_contain_text("of 60 proteins")
    expect(page.locator("#quality")).to_contain_text("Index of 60 proteins")
    other = new_window().new_page()
    other.goto(f"{sites['open'].url}/#q=kinase&index=texts")
    expect(other.locator("#count")).to_contain_text("of 12 texts")
    expect(other.locator("#quality")).to_contain_text("Index of 12 texts")
    assert other.title() == "kinase · ProtCLIP"
    other.goto(f"{sites['open'].url}/#q=kinase&index=nowhere")
    expect(other.get_by_role("alert")).to_contain_text("'nowhere': is not served")
    assert other.get_by_label("Index").input_value() == "default"


def test_back_is_one_step_for_what_was_asked_twice_and_esc_at_the_start_is_none(page):
    expect(page.get_by_label("Index")).to_have_value("default")  # or the first question would name no index
    ask(page, QUESTION)
    before = page.evaluate("history.length")
    with page.expect_response("**/v1/search"):
        page.keyboard.press("Enter")
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")
    assert page.evaluate("history.length") == before
    page.locator("#rows .open").first.click()
    expect(page.locator("#rows .panel")).to_be_visible()
    page.go_back()
    expect(page.locator("#start")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    ask(page, QUESTION)


def test_files_keep_their_rows_whatever_names_hold(page):
    names = ['"half quoted', 'a "b" c', "tab\there\nline", "=1+2", "\x00\x1b[31m", "\u202eleft"]
    hits = [HIT | {"rank": i, "accession": f"P{i:05d}", "name": name} for i, name in enumerate(names, 1)]
    answers = [ANSWER | {"query": query, "hits": hits} for query in ("one", 'two "2"')]
    page.route("**/v1/search", lambda route: route.fulfill(json={"answers": answers}))
    ask(page, "".join(f">s{i}\n{'MKTAYIAKQR' * 5}\n" for i in range(20)))
    lines = [line for line in download(page, "TSV").split("\n") if not line.startswith("# ")]
    rows = list(csv.DictReader(lines, delimiter="\t"))
    assert [row["name"] for row in rows[: len(names)]] == [
        '"half quoted',
        'a "b" c',
        "tab here line",
        "=1+2",
        "[31m",
        "\u202eleft",
    ]
    assert [row["query"] for row in rows] == ["one"] * len(names) + ['two "2"'] * len(names)
    heads = [line for line in download(page, "FASTA").split("\n") if line.startswith(">")]
    assert len(heads) == len(names) and all('query="two \\"2\\""' in head and len(head) < 700 for head in heads)


def test_files_have_the_hits_and_say_what_was_asked(page, sites):
    ask(page, QUESTION)
    page.locator("#filters summary").click()
    page.get_by_label("Organism id").fill("9606")
    page.get_by_role("button", name="Search").click()
    answer = sites["open"].search(text=QUESTION, k=25, filter="organism_id = 9606")
    expect(page.locator("#rows tr").first).to_contain_text(answer["hits"][0]["accession"])
    written = json.loads(download(page, "JSON"))
    assert {**written["answers"][0], "map": None} == answer
    asked = written["asked"]
    assert datetime.fromisoformat(asked["date"]).tzinfo is not None and asked["link"] == page.url
    assert (asked["question"], asked["filter"], asked["kind"], asked["k"], asked["offset"], asked["model"]) == (
        QUESTION,
        "organism_id = 9606",
        "text",
        25,
        0,
        answer["model"],
    )
    assert asked["index"] == answer["index"]
    lines = download(page, "TSV").splitlines()
    said = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    assert said["question"] == QUESTION and said["filter"] == "organism_id = 9606" and said["model"] == answer["model"]
    assert said["index"] == answer["index"] and "date" in said
    rows = list(csv.DictReader([line for line in lines if not line.startswith("# ")], delimiter="\t"))
    assert [row["accession"] for row in rows] == [hit["accession"] for hit in answer["hits"]]
    assert [float(row["score"]) for row in rows] == [hit["score"] for hit in answer["hits"]]
    assert rows[0]["organism_id"] == "9606" and {row["ec"] for row in rows} == {"", "2.7.11.1; 3.6.1.3"}


def test_an_answer_of_a_part_of_the_index_says_what_is_missing(page, sites, shot):
    """As a gateway answers (test_sharded.py); here the whole index's answer is made into one."""
    site, partial = sites["open"], {"missing_shards": [1, 4], "searched_rows": 1030, "total_rows": 2060}

    def without_shards(route: Route) -> None:
        assert json.loads(route.request.post_data or "")["allow_partial"] is True
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "partial": partial})

    page.route("**/v1/search", without_shards)
    ask(page, QUESTION)
    lacking = page.locator("#partial")
    expect(lacking).to_contain_text("Shards 1, 4 of the index cannot be reached now: 1,030 of 2,060 rows were searched")
    expect(page.locator("#count")).to_contain_text("Ranks 1–25 of 1,030 proteins")
    shot(page, "partial")
    written = json.loads(download(page, "JSON"))
    assert written["asked"]["partial"] == written["answers"][0]["partial"] == partial
    said = dict(line[2:].split(": ", 1) for line in download(page, "TSV").splitlines() if line.startswith("# "))
    assert json.loads(said["partial"]) == partial
    assert all(" partial=1030/2060" in line for line in download(page, "FASTA").splitlines() if line[0] == ">")
    if AXE.exists():
        check_accessible(page)
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Ask again").click()
    expect(lacking).to_be_empty()
    expect(page.locator("#count")).to_contain_text("of 60 proteins")
    assert accessions(page) == [hit["accession"] for hit in site.search(text=QUESTION, k=25)["hits"]]
    assert json.loads(download(page, "JSON"))["asked"]["partial"] is None


def test_what_is_asked_before_the_server_has_told_of_itself_stays(new_window, sites):
    held = []
    other = new_window().new_page()
    for route in ("**/info", "**/v1/search"):
        other.route(route, lambda route: held.append(route))  # noqa: PLW0108  playwright takes no built-in
    other.goto(sites["open"].url)
    other.locator("#filters summary").click()
    other.get_by_label("Length from").fill("30")
    expect(other.get_by_label("Length from")).to_be_focused()
    other.get_by_label("Function, accession, sequence or FASTA").fill(QUESTION)
    other.keyboard.press("Enter")
    expect(other.locator("#state")).to_contain_text("Searching…")
    told, answer = held
    told.continue_()
    expect(other.locator("#quality")).to_contain_text("how good it is was not measured")
    other.wait_for_timeout(100)
    answer.continue_()
    expect(other.locator("#rows tr")).to_have_count(25)


def test_a_link_holds_the_question_and_back_and_forward_go_through_them(page, new_window):
    page.locator("#filters summary").click()
    page.get_by_label("Length from").fill("30")
    ask(page, QUESTION)
    first = accessions(page)
    page.get_by_label("Next page").click()
    expect(page.locator("#count")).to_contain_text("Ranks 26")
    second, address = accessions(page), page.url
    other = new_window().new_page()
    other.goto(address)
    expect(other.locator("#count")).to_contain_text("Ranks 26")
    assert accessions(other) == second and other.get_by_label("As text").input_value() == "length >= 30"
    page.go_back()
    expect(page.locator("#count")).to_contain_text("Ranks 1–")
    assert accessions(page) == first
    page.go_forward()
    expect(page.locator("#count")).to_contain_text("Ranks 26")
    page.go_back()
    page.go_back()
    expect(page.locator("#start")).to_be_visible()
    # Too long for a link: it is still in the window's own history.
    long = f">a\n{'MKTAYIAKQR' * 900}"
    ask(page, long)
    assert "#" not in page.url
    page.reload()
    expect(page.locator("#rows tr")).to_have_count(25)
    assert page.get_by_label("Function, accession, sequence or FASTA").input_value() == long
    page.get_by_text("Recent", exact=True).click()
    page.locator("#recent button").filter(has_text=QUESTION).click()
    expect(page.locator("#filtered")).to_have_text("length >= 30")
    expect(page.locator("#count")).to_contain_text("Ranks 1–")
    page.get_by_text("Recent", exact=True).click()
    page.get_by_role("button", name="Clear the list").click()
    expect(page.locator("#recent")).to_contain_text("Nothing asked yet")


def test_what_the_server_refuses_is_told_with_the_requests_id(page, shot):
    page.locator("#filters summary").click()
    page.get_by_label("As text").fill("length > short")
    with page.expect_response("**/v1/search") as waiting:
        page.get_by_label("Function, accession, sequence or FASTA").fill(QUESTION)
        page.keyboard.press("Enter")
    error = page.get_by_role("alert")
    expect(error).to_contain_text("a whole number for 'length'")
    expect(error).to_contain_text(waiting.value.headers["x-request-id"])
    shot(page, "refused")
    page.get_by_label("As text").fill("")
    page.get_by_label("Function, accession, sequence or FASTA").fill(">empty\n>two\nMKT")
    page.keyboard.press("Enter")
    expect(error).to_contain_text("the record empty has no sequence")
    ask(page, QUESTION)
    expect(error).to_have_count(0)


def test_a_key_is_asked_for_and_a_busy_server_asked_again(new_window, sites, shot):
    site = sites["keyed"]
    page = new_window().new_page()
    page.goto(site.url)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    shot(page, "key")
    page.get_by_label("Key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("The server does not know this key.")
    page.get_by_label("Key", exact=True).fill(site.keys["quick"])
    page.keyboard.press("Enter")
    expect(page.locator("#quality")).to_contain_text("Index of 60 proteins")
    expect(dialog).to_be_hidden()
    ask(page, QUESTION)
    assert site.keys["quick"] not in page.url
    assert page.evaluate("JSON.stringify(localStorage)").count("protclip_") == 0
    # The slow key has one request in four seconds, which is used up here.
    page.evaluate("key => sessionStorage.setItem('protclip-key', key)", site.keys["slow"])
    use = {"headers": {"Authorization": f"Bearer {site.keys['slow']}"}, "timeout": 60}
    assert requests.get(f"{site.url}/info", **use).status_code == 200
    page.get_by_label("Next page").click()
    expect(page.locator("#state")).to_contain_text("The server is busy")
    expect(page.locator("#state")).to_contain_text(re.compile(r"Again in \d s"))
    shot(page, "busy")
    expect(page.locator("#count")).to_contain_text("Ranks 26–50")
    page.get_by_label("Previous page").click()
    expect(page.locator("#state")).to_contain_text("The server is busy")
    page.keyboard.press("Escape")
    expect(page.locator("#state")).to_have_text("Cancelled.")


def test_a_server_that_is_gone_is_told_and_asked_again(new_window, sites, shot):
    site = sites["dying"]
    page = new_window().new_page()
    page.goto(site.url)
    expect(page.locator("#quality")).to_contain_text("Index of 60 proteins")
    site.server.should_exit = True
    with pytest.raises(requests.ConnectionError):
        while True:
            requests.get(f"{site.url}/health", timeout=60, headers={"Connection": "close"})
    page.get_by_label("Function, accession, sequence or FASTA").fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    shot(page, "gone")


def test_the_page_fits_a_phone_and_the_dark(new_window, sites, shot):
    page = new_window(color_scheme="dark", device_scale_factor=2).new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(sites["open"].url)
    ask(page, QUESTION)
    shot(page, "phone-dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_text("Recent", exact=True).click()
    shot(page, "phone-recent")
    box = page.locator("#recent").bounding_box()
    assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390
    page.keyboard.press("Escape")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    theme = page.get_by_role("button", name="Colours")
    theme.click()
    expect(theme).to_have_text("◐ Light")
    light = page.evaluate(ground)
    assert light == "rgb(255, 255, 255)" != dark
    page.reload()
    assert page.evaluate(ground) == light
    theme.click()
    assert page.evaluate(ground) == dark


def test_words_of_any_length_fit_the_window(page, shot):
    word = "W" * 300
    hits = [HIT | {"rank": i, "accession": f"contig_{word[:80]}", "name": word, "ec": [word]} for i in range(1, 26)]
    page.route("**/v1/search", lambda route: route.fulfill(json=ANSWER | {"hits": hits, "map": [[0, 0]] * 25}))
    ask(page, QUESTION)
    for width in (1440, 1000, 390):
        page.set_viewport_size({"width": width, "height": 844})
        shot(page, f"long-words-{width}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.skipif(not AXE.is_file(), reason=f"no {AXE}: npm install --no-save axe-core")
def test_axe_finds_nothing_serious(page, sites):
    page.goto(sites["keyed"].url)
    expect(page.get_by_role("dialog")).to_be_visible()
    check_accessible(page)
    page.goto(sites["open"].url)
    expect(page.locator("#quality")).to_contain_text("Index of 60 proteins")
    check_accessible(page)
    page.locator("#filters summary").click()
    page.get_by_text("Recent", exact=True).click()
    check_accessible(page)
    ask(page, QUESTION)
    page.locator("#rows .open").first.click()
    check_accessible(page)
    page.get_by_label("As text").fill("nothing")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("alert")).to_be_visible()
    check_accessible(page)
