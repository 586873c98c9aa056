// Answers as files, each of which says what was asked, of what, and when.

import { ask } from "./api.js";
import { make } from "./dom.js";

const COLUMNS = ["rank", "score", "percentile", "accession", "name", "gene", "organism", "organism_id", "reviewed", "length", "ec", "text"];
const LINE = 60;
const AT_ONCE = 4;
/** Of accessions without a sequence, so many are named. */
const SHOWN = 5;
/** Characters of a question in the line of a FASTA record. */
const LONGEST_IN_LINE = 200;

/** What was asked, as it stands in every file. */
export function provenance(asked, answers, { version, link, date }) {
  return {
    question: asked.question,
    kind: asked.kind,
    filter: asked.filter || null,
    exclude_self: asked.excludeSelf,
    index_name: asked.index,
    k: asked.rows,
    offset: asked.offset,
    model: answers[0].model,
    index: answers[0].index,
    partial: answers[0].partial ?? null,
    version,
    date: date.toISOString(),
    link,
  };
}

/** Save answers as "json", "tsv" or "fasta"; what there is to say of the file. */
export async function exportAs(form, about, answers, request) {
  const name = `protclip-${about.date.slice(0, 19).replace(/[-:]/g, "")}.${form}`;
  if (form === "json") save(name, "application/json", toJson(about, answers));
  if (form === "tsv") save(name, "text/tab-separated-values", toTsv(about, answers));
  if (form !== "fasta") return "";
  const { text, missing } = await toFasta(about, answers, request);
  if (!text) return "No FASTA: the server knows no sequence of these hits. It may be told them when it is started.";
  save(name, "text/x-fasta", text);
  const some = `${missing.slice(0, SHOWN).join(", ")}${missing.length > SHOWN ? ", …" : ""}`;
  return missing.length > 0 ? `Without ${missing.length} whose sequence the server does not know: ${some}.` : "";
}

function toJson(about, answers) {
  return `${JSON.stringify({ asked: about, answers }, null, 2)}\n`;
}

function toTsv(about, answers) {
  const names = answers.length > 1 ? ["query", ...COLUMNS] : COLUMNS;
  const lines = Object.entries(about).map(([name, value]) => `# ${name}: ${typeof value === "string" ? inLine(value) : JSON.stringify(value)}`);
  lines.push(names.join("\t"));
  for (const answer of answers) {
    for (const hit of answer.hits) lines.push(names.map((name) => cell(name === "query" ? answer.query : hit[name])).join("\t"));
  }
  return `${lines.join("\n")}\n`;
}

/**
 * FASTA of the hits whose sequence the server knows, and the accessions of the others.
 *
 * Few programs read comments in FASTA, so each record's own line says what was asked.
 */
async function toFasta(about, answers, request) {
  const hits = new Map(answers.flatMap(({ hits: some, query }) => some.map((hit) => [hit.accession, { ...hit, query }])));
  const waiting = [...hits.keys()];
  const sequences = new Map();
  const fetchSome = async () => {
    for (let accession; (accession = waiting.shift()) !== undefined; ) {
      const query = about.index_name ? `?index=${encodeURIComponent(about.index_name)}` : "";
      sequences.set(accession, (await ask(`v1/proteins/${encodeURIComponent(accession)}${query}`, request)).sequence);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, fetchSome));
  const source = [
    `question=${JSON.stringify(shortened(inLine(about.question)))}`,
    about.filter && `filter=${JSON.stringify(about.filter)}`,
    `model=${about.model} index=${about.index} date=${about.date}`,
    about.partial && `partial=${about.partial.searched_rows}/${about.partial.total_rows}`,
  ].filter(Boolean).join(" ");
  const records = [];
  for (const [accession, hit] of hits) {
    const sequence = sequences.get(accession);
    if (!sequence) continue;
    const named = [hit.name, hit.organism && `OS=${hit.organism}`, hit.organism_id && `OX=${hit.organism_id}`, hit.gene?.[0] && `GN=${hit.gene[0]}`];
    const line = [accession, ...named.filter(Boolean).map(inLine), ...(hit.query === null ? [] : [`query=${JSON.stringify(inLine(hit.query))}`]),
      `rank=${hit.rank} score=${hit.score.toFixed(4)}`, source].join(" ");
    records.push(`>${line}\n${sequence.replace(new RegExp(`.{1,${LINE}}`, "g"), "$&\n")}`);
  }
  return { text: records.join(""), missing: [...hits.keys()].filter((accession) => !sequences.get(accession)) };
}

/** Hand a file to the browser. */
function save(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

const inLine = (text) => text.replace(/[\s\x00-\x1f\x7f-\x9f]+/g, " ").trim();

const shortened = (text) => (text.length > LONGEST_IN_LINE ? `${text.slice(0, LONGEST_IN_LINE)}…` : text);

/** A value as `protclip search` writes it: quoted where it holds a quote, or a reader would take the next cells to it. */
function cell(value) {
  if (value === null || value === undefined) return "";
  const text = inLine(Array.isArray(value) ? value.join("; ") : String(value));
  return text.includes('"') ? `"${text.replaceAll('"', '""')}"` : text;
}
