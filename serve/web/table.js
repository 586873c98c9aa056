// The hits of one answer as a table: sorted by a column, walked through with the arrow keys, each row to be opened.

import { fixed, make, page } from "./dom.js";
import { isAccession } from "./question.js";

const COLUMNS = [
  { name: "rank", title: "Rank", numeric: true },
  { name: "score", title: "Score", numeric: true, hint: "Cosine between question and protein, from −1 to 1" },
  {
    name: "percentile",
    title: "Percentile",
    numeric: true,
    hint: "Share of random questions whose best answer scores lower",
  },
  { name: "accession", title: "Accession" },
  { name: "name", title: "Name" },
  { name: "gene", title: "Gene" },
  { name: "organism", title: "Organism" },
  { name: "length", title: "Length", numeric: true, hint: "Residues" },
  { name: "ec", title: "EC" },
];

/** What a cell is sorted by; null stands last. */
const sortKey = (hit, name) => {
  const value = Array.isArray(hit[name]) ? hit[name][0] : hit[name];
  return value === undefined || value === "" ? null : value;
};

/**
 * Shows hits.
 *
 * `onOpen(hit, panel)` fills the panel below a row that is opened, and is called with null when it is closed;
 * `onPoint(hit)` is told which row is looked at, or null.
 */
export class Table {
  constructor({ onOpen, onPoint }) {
    this.onOpen = onOpen;
    this.onPoint = onPoint;
    page.rows.addEventListener("keydown", (event) => this.walk(event));
  }

  show(answer) {
    this.hits = [...answer.hits];
    this.content = answer.content;
    this.sorted = { name: "rank", down: false };
    // A column that is empty for all of them only takes room.
    this.columns = COLUMNS.filter(({ name }) => name !== "percentile" || this.hits.some((hit) => hit.percentile !== null));
    this.draw();
  }

  draw() {
    this.opened = null;
    page.columns.replaceChildren(...this.columns.map((column) => this.heading(column)));
    this.lines = new Map(this.hits.map((hit) => [hit, this.line(hit)]));
    page.rows.replaceChildren(...this.lines.values());
    this.makeCurrent(page.rows.firstElementChild);
  }

  heading({ name, title, numeric, hint }) {
    const { sorted } = this;
    const order = sorted.name !== name ? "none" : sorted.down ? "descending" : "ascending";
    const button = make("button", { type: "button", title: hint, onclick: () => this.sort(name) }, title);
    return make("th", { scope: "col", class: `${name}${numeric ? " numeric" : ""}`, "aria-sort": order }, button);
  }

  sort(name) {
    const { sorted } = this;
    // What is better is more of a score, and less of a rank.
    const downFirst = name === "score" || name === "percentile";
    sorted.down = sorted.name === name ? !sorted.down : downFirst;
    sorted.name = name;
    const sign = sorted.down ? -1 : 1;
    this.hits.sort((one, other) => {
      const [a, b] = [sortKey(one, name), sortKey(other, name)];
      if (a === null || b === null) return (a === null) - (b === null) || one.rank - other.rank;
      const order = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true, sensitivity: "base" });
      return sign * order || one.rank - other.rank;
    });
    this.close();
    this.draw();
    [...page.columns.children][this.columns.findIndex((column) => column.name === name)].firstElementChild.focus();
  }

  line(hit) {
    const panel = `panel-${hit.rank}`;
    const open = make("button", {
      type: "button",
      class: "open",
      "aria-expanded": "false",
      "aria-controls": panel,
      "aria-label": `Rank ${hit.rank}: ${this.content === "protein" ? "residues of " : ""}${hit.accession}`,
      onclick: (event) => (event.stopPropagation(), this.toggle(hit)),
    }, String(hit.rank));
    const texts = {
      score: fixed(hit.score, 4),
      percentile: hit.percentile === null ? "–" : `${hit.percentile.toFixed(1)} %`,
      organism: make("span", { class: "line", title: hit.organism }, hit.organism ?? "–"),
      length: hit.length?.toLocaleString("en") ?? "–",
      ec: hit.ec?.join(", ") || "–",
    };
    const cells = { rank: open, accession: this.accession(hit), name: this.name(hit), gene: this.gene(hit) };
    return make(
      "tr",
      {
        onclick: (event) => {
          if (!event.target.closest("a, button") && !String(getSelection())) this.toggle(hit);
        },
        onpointerenter: () => this.onPoint(hit),
        onpointerleave: () => this.onPoint(null),
        onfocusin: () => (this.makeCurrent(this.lines.get(hit)), this.onPoint(hit)),
        onfocusout: () => this.onPoint(null),
      },
      this.columns.map(({ name, numeric }) =>
        make("td", { class: `${name}${numeric ? " numeric" : ""}` }, cells[name] ?? texts[name])),
    );
  }

  accession(hit) {
    const reviewed = hit.reviewed === true && make("span", { class: "reviewed", title: "Reviewed (Swiss-Prot)" },
      make("span", { "aria-hidden": "true" }, "●"), make("span", { class: "unseen" }, "reviewed"));
    // Rows of an index may have names of other sources.
    const name = isAccession(hit.accession)
      ? make("a", {
          href: `https://www.uniprot.org/uniprotkb/${encodeURIComponent(hit.accession)}/entry`,
          target: "_blank",
          rel: "noopener noreferrer",
          title: "Its entry in UniProt, in a new window",
        }, hit.accession)
      : hit.accession;
    return [name, reviewed];
  }

  name(hit) {
    const about = [hit.gene?.[0], hit.length && `${hit.length} aa`, hit.organism].filter(Boolean).join(" · ");
    return [
      make("span", { class: "title" }, hit.name ?? "–"),
      hit.text && make("span", { class: "biotext" }, hit.text),
      make("span", { class: "narrow" }, about),
    ];
  }

  gene(hit) {
    const [first, ...others] = hit.gene ?? [];
    if (!first) return "–";
    return make("span", { class: "line", title: [first, ...others].join(", ") }, first);
  }

  /** Mark the row of a hit, as another part of the page points at it. */
  point(hit, scroll = false) {
    for (const [other, line] of this.lines) line.classList.toggle("pointed", other === hit);
    if (hit && scroll) this.lines.get(hit).scrollIntoView({ block: "nearest" });
  }

  toggle(hit) {
    const again = this.opened === hit;
    this.close();
    if (!again) this.open(hit);
  }

  open(hit) {
    const line = this.lines.get(hit);
    const cell = make("td", { colspan: this.columns.length });
    this.panel = make("tr", { class: "panel", id: `panel-${hit.rank}` }, cell);
    line.after(this.panel);
    line.classList.add("opened");
    line.querySelector(".open").setAttribute("aria-expanded", "true");
    this.opened = hit;
    this.onOpen(hit, cell);
  }

  close() {
    if (!this.opened) return;
    const line = this.lines.get(this.opened);
    line.classList.remove("opened");
    line.querySelector(".open").setAttribute("aria-expanded", "false");
    this.panel.remove();
    this.opened = null;
    this.onOpen(null);
  }

  /** Close the open row and go to it; whether one was open. */
  leave() {
    if (!this.opened) return false;
    const line = this.lines.get(this.opened);
    this.close();
    line.querySelector(".open").focus();
    return true;
  }

  // One row can be reached by Tab, the others by the arrows: a page of 100 hits is no obstacle.
  makeCurrent(line) {
    for (const other of this.lines.values()) {
      for (const stop of other.querySelectorAll("a, button")) stop.tabIndex = other === line ? 0 : -1;
    }
  }

  walk(event) {
    const line = event.target.closest("tr");
    if (event.altKey || event.ctrlKey || event.metaKey || line.classList.contains("panel")) return;
    const lines = [...this.lines.values()];
    const place = lines.indexOf(line);
    const next = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: lines.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    lines[Math.min(Math.max(next, 0), lines.length - 1)].querySelector(".open").focus();
  }
}
