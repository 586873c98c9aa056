// The page: what is asked, how it stands, and what came of it.

import { ask, ServerError } from "./api.js";
import { make, page } from "./dom.js";
import { exportAs, provenance } from "./export.js";
import { emptyForm, fillForm, fillQuestion, readForm } from "./form.js";
import { closeRecent, startHeader } from "./header.js";
import { isAsked, readLink, remember, writeLink } from "./link.js";
import { HitMap } from "./map.js";
import { describeQuality } from "./quality.js";
import { fieldsOf } from "./question.js";
import { residuesPanel } from "./residues.js";
import { askForKey, errorElement, mayPass, partialElement, showState } from "./states.js";
import { Table } from "./table.js";

const EXAMPLES = [
  "FUNCTION: Catalyzes the hydrolysis of ATP.",
  "FUNCTION: Involved in oxygen transport from the lung to the various peripheral tissues.",
  "SUBCELLULAR LOCATION: Cell membrane; Multi-pass membrane protein.",
  "P69905",
];

/** What is asked, as in the link; null at first. */
let asked = null;
/** The answers to it. */
let answers = [];
/** Of the server: /info, once it has come, and its indexes. */
let info = null;
let indexes = [];
/** Ends the request that is under way. */
let running = null;
/** The residues of the open hit. */
let panel = null;

const request = { askForKey };
const table = new Table({ onOpen: openHit, onPoint: (hit) => map.point(hit) });
const map = new HitMap({
  onPoint: (hit) => table.point(hit),
  onOpen: (hit) => {
    table.toggle(hit);
    table.point(hit, true);
  },
});

// --- a search ---

/**
 * Ask. `way` says how the address changes when the answer, or an error, has come: "push" or "replace".
 *
 * Until then, and where it is cancelled, everything stays as it was.
 */
async function search(wanted, way = "push") {
  running?.abort();
  const controller = (running = new AbortController());
  let found = [];
  let failure = null;
  try {
    found = await answersTo(wanted, controller.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    failure = error;
  }
  endSearch();
  [asked, answers] = [wanted, found];
  writeAddress(way);
  page.start.hidden = true;
  try {
    if (!failure) showAnswers();
  } catch (error) {
    failure = new ServerError(`The answer has another form than this page knows. Load the page again. (${error.message})`);
  }
  page.results.hidden = failure !== null;
  if (failure) {
    showState(errorElement(failure, mayPass(failure) && (() => search(wanted, "replace"))));
  } else {
    showState();
    remember(asked);
    // Another release of the index may answer since.
    if (indexes.every(({ fingerprint }) => fingerprint !== answers[0].index)) learn();
  }
}

async function answersTo(wanted, signal) {
  const body = { ...fieldsOf(wanted), k: wanted.rows, offset: wanted.offset, map: true, allow_partial: true };
  if (wanted.filter) body.filter = wanted.filter;
  if (wanted.index) body.index = wanted.index;
  if (wanted.excludeSelf) body.exclude_self = true;
  const words = make("span", {}, "Searching…");
  const cancel = make("button", { type: "button", onclick: cancelSearch }, "Cancel");
  showState(make("p", { class: "loading" }, make("span", { class: "spinner" }), words, cancel));
  page.results.setAttribute("aria-busy", "true");
  const onWait = (left, why) => { words.textContent = `The server is busy: ${why} Again in ${left} s.`; };
  const found = await ask("v1/search", { ...request, body, signal, onWait });
  return found.answers ?? [found];
}

function endSearch() {
  running = null;
  page.results.removeAttribute("aria-busy");
}

/** Stop what is under way; whether anything was. */
function cancelSearch() {
  if (!running) return false;
  running.abort();
  endSearch();
  showState(make("p", { class: "hint" }, "Cancelled."));
  return true;
}

function writeAddress(way) {
  const address = writeLink(asked) ?? location.pathname + location.search;
  // What is asked twice is gone back from once.
  const again = JSON.stringify(history.state) === JSON.stringify(asked);
  history[way === "push" && !again ? "pushState" : "replaceState"](asked, "", address);
  document.title = `${asked.question.trim().slice(0, 60)} · ProtCLIP`;
}

function showAnswers() {
  page.results.hidden = false;
  page.questions.hidden = answers.length < 2;
  page.answer.replaceChildren(...answers.map((answer, i) =>
    make("option", { value: i }, `${i + 1} of ${answers.length}: ${answer.query ?? "unnamed"}`)));
  asked.answer = Math.max(0, Math.min(asked.answer, answers.length - 1));
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
  showCount(answer);
  page.partial.replaceChildren(...answer.partial ? [partialElement(answer.partial, () => search({ ...asked }, "keep"))] : []);
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

function showCount({ hits, content, index, partial }) {
  const count = partial?.searched_rows ?? indexes.find(({ fingerprint }) => fingerprint === index)?.count;
  const all = asked.filter ? " under the filter" : count ? ` of ${count.toLocaleString("en")} ${content}s` : "";
  page.count.textContent = hits.length > 0
    ? `Ranks ${hits[0].rank}–${hits.at(-1).rank}${all}`
    : asked.offset > 0 ? "No more hits" : "No hit";
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
  if (!asked) return; // the start is shown, and a row of what was there before is closed
  asked.hit = hit?.accession ?? null;
  writeAddress("replace");
  if (!hit) return;
  const about = asked.about ?? (asked.kind === "text" ? asked.question.trim() : "");
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

/** The address of what is shown; null where it would be too long. */
function linkTo() {
  const fragment = writeLink(asked);
  return fragment && new URL(fragment, location.href).href;
}

for (const form of ["tsv", "fasta", "json"]) {
  page[form].addEventListener("click", async () => {
    try {
      const about = provenance(asked, answers, { version: info?.version ?? null, link: linkTo(), date: new Date() });
      if (form === "fasta") note("Fetching the sequences…");
      note(await exportAs(form, about, answers, request));
    } catch (error) {
      note(error.message);
    }
  });
}
page.copy.addEventListener("click", async () => {
  const link = linkTo();
  if (link === null) {
    note("The question is too long for a link. Export JSON, which holds it.");
    return;
  }
  try {
    await navigator.clipboard.writeText(link);
    note("The link is copied. It holds the whole question.");
  } catch {
    note("The browser lets no page copy here; the address bar has the link.");
  }
});

// --- history and keyboard ---

function showStart() {
  running?.abort();
  endSearch();
  panel?.stop();
  [asked, answers] = [null, []];
  page.results.hidden = true;
  page.start.hidden = false;
  showState();
  document.title = "ProtCLIP";
}

/** Show what the address says. */
function goTo(state) {
  const given = isAsked(state) ? state : readLink(location.hash);
  if (given) {
    fillForm(given);
    showQuality();
    search({ ...given }, "replace");
  } else {
    showStart();
  }
}

page.ask.addEventListener("submit", (event) => {
  event.preventDefault();
  closeRecent();
  search(readForm());
});
startHeader((old) => {
  fillForm(old);
  showQuality();
  search({ ...old });
});
addEventListener("popstate", (event) => goTo(event.state));
page.home.addEventListener("click", (event) => {
  event.preventDefault();
  if (asked) history.pushState(null, "", location.pathname + location.search);
  emptyForm();
  showQuality();
  showStart();
  page.question.focus();
});
document.addEventListener("keydown", (event) => {
  if (page.keys.open || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest?.("input, textarea, select");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    page.question.focus();
    page.question.select();
  } else if (event.key === "Escape") {
    if (!closeRecent() && !cancelSearch() && !table.leave()) document.activeElement?.blur();
  }
});

// --- the start ---

/** Ask what there is: the model, how good it is, the indexes. */
async function learn() {
  try {
    info = await ask("info", request);
    ({ indexes } = await ask("v1/indexes", request));
    const chosen = page.index.value;
    page.index.replaceChildren(...indexes.map(({ name }) => make("option", { selected: name === chosen }, name)));
    page.indexes.hidden = indexes.length < 2;
    for (const option of page.amount.options) option.disabled = Number(option.value) > info.limits.max_k;
    showQuality();
    if (answers.length > 0) showCount(answers[asked.answer]);
  } catch (error) {
    page.quality.replaceChildren(errorElement(error, mayPass(error) && learn));
  }
}

function showQuality() {
  if (!info) return;
  const index = indexes.find(({ name }) => name === page.index.value) ?? info.index;
  page.quality.textContent = describeQuality({ model: info.model, index });
}

page.index.addEventListener("change", showQuality);
page.examples.append(...EXAMPLES.map((text) => make("li", {}, make("button", {
  type: "button",
  onclick: () => {
    fillQuestion(text);
    search(readForm());
  },
}, text))));
const linked = isAsked(history.state) || readLink(location.hash) !== null;
if (!linked) page.question.focus();
await learn();
// Unless the user was quicker.
if (linked && !asked && !running) goTo(history.state);
