// What is asked as the fragment of the address, which the browser keeps to itself, and the list of recent questions.

import { KINDS, kindOf } from "./question.js";

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

/** Recent questions, the last first. */
export function recent() {
  try {
    return JSON.parse(localStorage.getItem(RECENT)) ?? [];
  } catch {
    return [];
  }
}

/** Put a question at the beginning of them, once. */
export function remember(asked) {
  if (asked.question.length > LONGEST_RECENT) return;
  const kept = { ...asked, offset: 0, answer: 0, hit: null, about: null };
  const same = (other) => other.question === kept.question && other.filter === kept.filter && other.kind === kept.kind;
  const list = [kept, ...recent().filter((other) => !same(other))].slice(0, MOST_RECENT);
  try {
    localStorage.setItem(RECENT, JSON.stringify(list));
  } catch {
    // The browser keeps nothing, or no more: the list is a convenience.
  }
}

export function forget() {
  localStorage.removeItem(RECENT);
}
