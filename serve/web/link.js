// What is asked as the fragment of the address, which the browser keeps to itself, and the list of recent questions.

import { KINDS, kindOf } from "./question.js";
import { keep, kept } from "./store.js";

export const DEFAULT_ROWS = 25;
/** Characters of a fragment: programs that pass links on cut longer ones. */
const LONGEST = 8000;
const RECENT = "protclip-recent";
const MOST_RECENT = 20;
/** Characters of a question that is remembered. */
const LONGEST_RECENT = 20_000;

/** What is asked, from a fragment; null where it holds no question. */
export function readLink(fragment) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  const question = given.get("q");
  if (!question) return null;
  const number = (name, otherwise) => (/^\d{1,6}$/.test(given.get(name)) ? Number(given.get(name)) : otherwise);
  return {
    question,
    kind: KINDS.includes(given.get("as")) ? given.get("as") : kindOf(question),
    filter: given.get("filter") ?? "",
    index: given.get("index"),
    excludeSelf: given.has("others"),
    rows: Math.max(1, number("rows", DEFAULT_ROWS)),
    offset: number("after", 0),
    answer: number("answer", 0),
    hit: given.get("hit"),
    about: given.get("about"),
  };
}

/** The fragment of what is asked; null where it is too long for a link. */
export function writeLink(asked) {
  const fields = {
    q: asked.question,
    as: asked.kind,
    filter: asked.filter,
    index: asked.index,
    others: asked.excludeSelf && "1",
    rows: asked.rows !== DEFAULT_ROWS && asked.rows,
    after: asked.offset,
    answer: asked.answer,
    hit: asked.hit,
    about: asked.about,
  };
  const fragment = `#${new URLSearchParams(Object.entries(fields).filter(([, value]) => value))}`;
  return fragment.length > LONGEST ? null : fragment;
}

/** Whether the browser kept this as what was asked; another version of the page may have kept something else. */
export function isAsked(given) {
  const [texts, numbers] = [[given?.question, given?.filter], [given?.rows, given?.offset, given?.answer]];
  return KINDS.includes(given?.kind) && texts.every((text) => typeof text === "string") && numbers.every(Number.isInteger);
}

/** Recent questions, the last first. */
export function recent() {
  try {
    return JSON.parse(kept("localStorage", RECENT)).filter(isAsked);
  } catch {
    return [];
  }
}

/** Put a question at the beginning of them, once. */
export function remember(asked) {
  if (asked.question.length > LONGEST_RECENT) return;
  const first = { ...asked, offset: 0, answer: 0, hit: null, about: null };
  const same = (other) => other.question === first.question && other.filter === first.filter && other.kind === first.kind;
  const list = [first, ...recent().filter((other) => !same(other))].slice(0, MOST_RECENT);
  keep("localStorage", RECENT, JSON.stringify(list));
}

export function forget() {
  keep("localStorage", RECENT, null);
}
