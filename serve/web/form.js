// The form: what is asked, of which kind it is, and how it is answered.

import { make, page } from "./dom.js";
import { readFilter, writeFilter } from "./filter.js";
import { DEFAULT_ROWS } from "./link.js";
import { kindOf } from "./question.js";

const FIELDS = ["organism", "reviewed", "shortest", "longest", "ec"];

/** The kind that the user has chosen; null while it is told apart. */
let chosen = null;
/** What the filter's text holds beside its fields. */
let rest = "";

function kindShown() {
  return page.ask.elements.kind.value;
}

/** What is asked, as `readLink` gives it. */
export function readForm() {
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

/** Show what is asked. */
export function fillForm(given) {
  page.question.value = given.question;
  page.ask.elements.kind.value = given.kind;
  chosen = given.kind === kindOf(given.question) ? null : given.kind;
  page.filter.value = given.filter;
  page.exclude.checked = given.excludeSelf;
  if (![...page.amount.options].some((option) => Number(option.value) === given.rows)) {
    page.amount.append(make("option", {}, String(given.rows)));
  }
  page.amount.value = String(given.rows);
  // The first is the one that is asked where none is named, or none of this name is here.
  page.index.value = given.index ?? "";
  if (page.index.selectedIndex < 0 && page.index.options.length > 0) page.index.selectedIndex = 0;
  questionChanged();
  filterChanged();
}

/** Show a question, whose kind is told by its form. */
export function fillQuestion(text) {
  page.question.value = text;
  chosen = null;
  questionChanged();
}

export function emptyForm() {
  fillForm({ question: "", kind: "text", filter: "", excludeSelf: false, rows: DEFAULT_ROWS, index: null });
}

function questionChanged() {
  const text = page.question.value;
  if (!text.trim()) chosen = null;
  const found = kindOf(text);
  page.ask.elements.kind.value = chosen ?? found;
  page.told.textContent = !text.trim() ? "" : chosen && chosen !== found ? "as you chose" : "recognised";
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
questionChanged();
