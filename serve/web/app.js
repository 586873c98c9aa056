// The page: what is asked, how it stands, and what came of it.

import { ask, ServerError } from "./api.js";
import { make, page } from "./dom.js";
import { provenance, save, toFasta, toJson, toTsv } from "./export.js";
import { readFilter, writeFilter } from "./filter.js";
import { DEFAULT_ROWS, forget, readLink, recent, remember, writeLink } from "./link.js";
import { Map2D } from "./map.js";
import { describeQuality } from "./quality.js";
import { fieldsOf, kindOf } from "./question.js";
import { residuesPanel } from "./residues.js";
import { Table } from "./table.js";

const EXAMPLES = [
  "FUNCTION: Catalyzes the hydrolysis of ATP.",
  "FUNCTION: Involved in oxygen transport from the lung to the various peripheral tissues.",
  "SUBCELLULAR LOCATION: Cell membrane; Multi-pass membrane protein.",
  "P69905",
];
const THEMES = ["system", "light", "dark"];
const FIELDS = ["organism", "reviewed", "shortest", "longest", "ec"];

/** What is asked, as in the link; null at first. */
let asked = null;
/** The answers to it. */
let answers = [];
/** Of the server: /info, once it has come. */
let info = null;
/** Ends the request that is under way. */
let running = null;
/** The kind that the user has chosen; null while it is told apart. */
let chosen = null;
/** What the filter's text holds beside its fields. */
let rest = "";
/** The residues of the open hit. */
let panel = null;
/** The key that the user is asked for. */
let keyAsked = null;

const request = { askForKey };
const table = new Table({ onOpen: openHit, onPoint: (hit) => map.point(hit) });
const map = new Map2D({
  onPoint: (hit) => table.point(hit),
  onOpen: (hit) => {
    table.toggle(hit);
    table.point(hit, true);
  },
});

// --- the form ---

function kindShown() {
  return page.ask.elements.kind.value;
}

function readForm() {
  return {
    question: page.question.value,
    kind: kindShown(),
    filter: page.filter.value.trim(),
    index: page.indexes.hidden ? null : page.index.value,
    excludeSelf: !page.others.hidden && page.exclude.checked,
    rows: Number(page.amount.value),
    offset: 0,
    answer: 0,
    hit: null,
    about: null,
  };
}

function fillForm(given) {
  page.question.value = given.question;
  page.ask.elements.kind.value = given.kind;
  chosen = given.kind === kindOf(given.question) ? null : given.kind;
  page.filter.value = given.filter;
  page.exclude.checked = given.excludeSelf;
  if (![...page.amount.options].some((option) => Number(option.value) === given.rows)) {
    page.amount.append(make("option", {}, String(given.rows)));
  }
  page.amount.value = String(given.rows);
  if (given.index) page.index.value = given.index;
  questionChanged();
  filterChanged();
}

function questionChanged() {
  const text = page.question.value;
  if (!text.trim()) chosen = null;
  const found = kindOf(text);
  page.ask.elements.kind.value = chosen ?? found;
  page.told.textContent = !text.trim() ? "" : chosen && chosen !== found ? "as you chose" : "told by its form";
  page.others.hidden = kindShown() === "text";
  page.question.classList.toggle("letters", kindShown() !== "text");
  // As high as its lines, up to what the style allows.
  page.question.style.height = "auto";
  page.question.style.height = `${page.question.scrollHeight + 2}px`;
}

function filterChanged() {
  const fields = readFilter(page.filter.value);
  rest = fields.rest;
  for (const name of FIELDS) page[name].value = fields[name] ?? "";
  page.filtered.textContent = page.filter.value.trim();
  page.filters.open ||= Boolean(page.filter.value.trim());
}

function fieldChanged() {
  const fields = Object.fromEntries(FIELDS.map((name) => [name, page[name].value.trim()]));
  page.filter.value = writeFilter({ ...fields, rest });
  page.filtered.textContent = page.filter.value;
}

page.question.addEventListener("input", questionChanged);
addEventListener("resize", questionChanged);
page.question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    page.ask.requestSubmit();
  }
});
page.kinds.addEventListener("change", () => {
  chosen = kindShown();
  questionChanged();
});
page.filter.addEventListener("input", filterChanged);
for (const name of FIELDS) page[name].addEventListener("input", fieldChanged);
page.ask.addEventListener("submit", (event) => {
  event.preventDefault();
  search(readForm());
});

// --- how it stands ---

function showState(...children) {
  page.state.replaceChildren(...children);
}

function errorElement(error, again) {
  const id = error.requestId && make("span", { class: "id" }, `Request ${error.requestId}`);
  const button = again && make("button", { type: "button", onclick: again }, "Try again");
  return make("div", { class: "error", role: "alert" }, make("p", {}, error.message), id, button);
}

/** Requests that are refused together wait for one key. */
function askForKey(why) {
  keyAsked ??= keyFromUser(why).finally(() => { keyAsked = null; });
  return keyAsked;
}

async function keyFromUser(why) {
  page["key-why"].textContent = why;
  page.key.value = "";
  page.keys.showModal();
  try {
    return await new Promise((resolve, reject) => {
      page["key-form"].onsubmit = (event) => (event.preventDefault(), resolve(page.key.value.trim()));
      page["key-cancel"].onclick = page.keys.oncancel = () =>
        reject(new ServerError("This server answers with a key alone. Ask whoever runs it for one.", { status: 401 }));
    });
  } finally {
    page.keys.close();
  }
}

// --- a search ---

/** Ask; `way` says how the address changes: "push", "replace", or "keep". */
async function search(wanted, way = "push") {
  running?.abort();
  const controller = (running = new AbortController());
  const { signal } = controller;
  try {
    const body = { ...fieldsOf(wanted), k: wanted.rows, offset: wanted.offset, map: true };
    if (wanted.filter) body.filter = wanted.filter;
    if (wanted.index) body.index = wanted.index;
    if (wanted.excludeSelf) body.exclude_self = true;
    asked = wanted;
    writeAddress(way);
    page.start.hidden = true;
    page.results.setAttribute("aria-busy", "true");
    const words = make("span", {}, "Searching…");
    const cancel = make("button", { type: "button", onclick: () => cancelSearch() }, "Cancel");
    showState(make("p", { class: "loading" }, make("span", { class: "spinner" }), words, cancel));
    const onWait = (left, why) => { words.textContent = `The server is busy: ${why} Again in ${left} s.`; };
    const found = await ask("v1/search", { ...request, body, signal, onWait });
    answers = found.answers ?? [found];
    remember(asked);
    showState();
    showAnswers();
    if (!info) learn();
  } catch (error) {
    if (error.name === "AbortError") return;
    page.results.hidden = true;
    showState(errorElement(error, error instanceof ServerError && (() => search(wanted, "keep"))));
  } finally {
    if (running === controller) {
      running = null;
      page.results.removeAttribute("aria-busy");
    }
  }
}

function cancelSearch() {
  if (!running) return false;
  running.abort();
  running = null;
  page.results.hidden = answers.length === 0;
  page.start.hidden = answers.length > 0;
  showState(make("p", { class: "hint" }, "Cancelled."));
  return true;
}

function writeAddress(way) {
  if (way === "keep") return;
  const address = writeLink(asked) ?? location.pathname + location.search;
  history[way === "push" ? "pushState" : "replaceState"](asked, "", address);
  document.title = `${asked.question.trim().slice(0, 60)} · ProtCLIP`;
}

function showAnswers() {
  page.results.hidden = false;
  page.questions.hidden = answers.length < 2;
  page.answer.replaceChildren(...answers.map((answer, i) =>
    make("option", { value: i }, `${i + 1} of ${answers.length}: ${answer.query ?? "unnamed"}`)));
  asked.answer = Math.min(asked.answer, answers.length - 1);
  page.answer.value = String(asked.answer);
  showAnswer();
}

function showAnswer() {
  const answer = answers[asked.answer];
  const { hits } = answer;
  panel?.stop();
  panel = null;
  table.show(answer);
  map.show(answer);
  page.count.textContent = hits.length > 0
    ? `Ranks ${hits[0].rank}–${hits.at(-1).rank}${info ? ` of ${info.index.count.toLocaleString("en")} ${answer.content}s` : ""}`
    : asked.offset > 0 ? "No more hits" : "No hit";
  const notes = [
    answer.truncated && "The question is longer than the model sees; its end was cut off.",
    hits.length === 0 && asked.filter && "Nothing that the filter lets pass.",
  ].filter(Boolean);
  note(notes.join(" "));
  page.previous.disabled = asked.offset === 0;
  const most = info?.limits.max_k ?? Infinity;
  page.next.disabled = hits.length < asked.rows || answers.length * (asked.offset + 2 * asked.rows) > most;
  page.next.title = page.next.disabled && hits.length === asked.rows ? `The server gives ${most} answers to a request at most` : "";
  for (const name of ["tsv", "fasta", "json"]) page[name].disabled = hits.length === 0;
  const opened = asked.hit && hits.find((hit) => hit.accession === asked.hit);
  if (opened) table.open(opened);
}

function note(text) {
  page.note.textContent = text;
}

function turn(offset) {
  search({ ...asked, offset, hit: null, about: null });
}

page.previous.addEventListener("click", () => turn(Math.max(0, asked.offset - asked.rows)));
page.next.addEventListener("click", () => turn(asked.offset + asked.rows));
page.answer.addEventListener("change", () => {
  Object.assign(asked, { answer: Number(page.answer.value), hit: null, about: null });
  writeAddress("replace");
  showAnswer();
});

// --- a hit ---

function openHit(hit, cell) {
  panel?.stop();
  panel = null;
  const about = (hit && asked.hit === hit.accession && asked.about) || (asked.kind === "text" ? asked.question.trim() : "");
  asked.hit = hit?.accession ?? null;
  if (!hit) asked.about = null;
  writeAddress("replace");
  if (!hit) return;
  panel = residuesPanel({
    hit,
    about,
    index: asked.index,
    request,
    onAsked: (text) => {
      asked.about = asked.kind === "text" && text === asked.question.trim() ? null : text;
      writeAddress("replace");
    },
    show: (error) => errorElement(error),
  });
  cell.append(panel);
  if (!about) panel.querySelector("textarea").focus();
}

// --- files and links ---

async function exportAs(form) {
  const link = writeLink(asked);
  const about = provenance(asked, answers, {
    version: info?.version ?? null,
    link: link && new URL(link, location.href).href,
    date: new Date(),
  });
  const name = `protclip-${about.date.slice(0, 19).replace(/[-:]/g, "")}`;
  if (form === "json") save(`${name}.json`, "application/json", toJson(about, answers));
  if (form === "tsv") save(`${name}.tsv`, "text/tab-separated-values", toTsv(about, answers));
  if (form === "fasta") {
    note("Fetching the sequences…");
    const { text, missing } = await toFasta(about, answers, request);
    if (text) save(`${name}.fasta`, "text/x-fasta", text);
    note(!text ? "No FASTA: the server knows no sequence of these hits. It may be told them when it is started."
      : missing.length > 0 ? `Without ${missing.length} whose sequence the server does not know: ${missing.slice(0, 5).join(", ")}${missing.length > 5 ? ", …" : ""}.` : "");
  }
}

for (const form of ["tsv", "fasta", "json"]) {
  page[form].addEventListener("click", () => exportAs(form).catch((error) => note(error.message)));
}
page.copy.addEventListener("click", async () => {
  if (writeLink(asked) === null) {
    note("The question is too long for a link. Export JSON, which holds it.");
    return;
  }
  try {
    await navigator.clipboard.writeText(location.href);
    note("The link is copied. It holds the whole question.");
  } catch {
    note("The browser lets no page copy here; the address bar has the link.");
  }
});

// --- history, keys of the keyboard, colours ---

function showRecent() {
  const list = recent();
  page.recent.replaceChildren(
    ...list.map((old) => make("button", {
      type: "button",
      onclick: () => {
        page.history.open = false;
        fillForm(old);
        search({ ...old });
      },
    }, make("span", {}, old.question.trim().slice(0, 120)), old.filter && make("small", {}, old.filter))),
    list.length > 0
      ? make("button", { type: "button", class: "clear", onclick: () => (forget(), showRecent()) }, "Clear the list")
      : make("p", { class: "hint" }, "Nothing asked yet. The list stays in this browser."),
  );
}

function showStart() {
  running?.abort();
  [asked, answers] = [null, []];
  page.results.hidden = true;
  page.start.hidden = false;
  showState();
  document.title = "ProtCLIP";
}

/** Show what the address says. */
function goTo(given) {
  if (given) {
    fillForm(given);
    search({ ...given }, "keep");
  } else {
    showStart();
  }
}

addEventListener("popstate", (event) => goTo(event.state ?? readLink(location.hash)));
page.home.addEventListener("click", (event) => {
  event.preventDefault();
  if (asked) history.pushState(null, "", location.pathname + location.search);
  fillForm({ question: "", kind: "text", filter: "", excludeSelf: false, rows: DEFAULT_ROWS, index: null });
  showStart();
  page.question.focus();
});
page.history.addEventListener("toggle", () => page.history.open && showRecent());
document.addEventListener("click", (event) => {
  if (!page.history.contains(event.target)) page.history.open = false;
});
document.addEventListener("keydown", (event) => {
  if (page.keys.open || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest?.("input, textarea, select");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    page.question.focus();
    page.question.select();
  } else if (event.key === "Escape") {
    if (page.history.open) page.history.open = false;
    else if (!cancelSearch() && !table.leave()) document.activeElement?.blur();
  }
});

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  const name = { system: "Auto", light: "Light", dark: "Dark" }[theme];
  page.theme.replaceChildren(make("span", { "aria-hidden": "true" }, "◐ "), name);
  page.theme.setAttribute("aria-label", `Colours: ${name}`);
  localStorage.setItem("protclip-theme", theme);
}

page.theme.addEventListener("click", () =>
  setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]));

// --- the start ---

/** Ask what there is: the model, how good it is, the indexes. */
async function learn() {
  try {
    [info] = await Promise.all([ask("info", request), learnIndexes()]);
    page.quality.textContent = describeQuality(info);
    for (const option of page.amount.options) option.disabled = Number(option.value) > info.limits.max_k;
  } catch (error) {
    page.quality.replaceChildren(errorElement(error, learn));
  }
}

async function learnIndexes() {
  const { indexes } = await ask("v1/indexes", request);
  page.indexes.hidden = indexes.length < 2;
  page.index.replaceChildren(...indexes.map(({ name }) => make("option", { value: name }, name)));
}

setTheme(document.documentElement.dataset.theme);
questionChanged();
page.examples.append(...EXAMPLES.map((text) => make("li", {}, make("button", {
  type: "button",
  onclick: () => {
    page.question.value = text;
    chosen = null;
    questionChanged();
    search(readForm());
  },
}, text))));
await learn();
goTo(history.state ?? readLink(location.hash));
if (!asked) page.question.focus();
