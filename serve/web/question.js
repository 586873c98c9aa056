// What is in the box, and the request it becomes.

export const KINDS = ["text", "accession", "sequence", "fasta"];

// https://www.uniprot.org/help/accession_numbers, with the number of an isoform.
const ACCESSION = /^([OPQ][0-9][A-Z0-9]{3}[0-9]|[A-NR-Z][0-9]([A-Z][A-Z0-9]{2}[0-9]){1,2})(-\d+)?$/i;
const LETTERS = /^[A-Za-z][A-Za-z\s]*\*?$/;
// A word of English is letters of amino acids too, but no word is as long, and no line of words is of such long ones.
const LONGEST_WORD = 25;
const LONG_WORD = 8;

/** The kind that the text is most likely of. */
export function kindOf(text) {
  const trimmed = text.trim();
  if (trimmed.startsWith(">")) return "fasta";
  if (ACCESSION.test(trimmed)) return "accession";
  return isSequence(trimmed) ? "sequence" : "text";
}

function isSequence(text) {
  if (!LETTERS.test(text)) return false;
  const words = text.replace("*", "").trim().split(/\s+/);
  const letters = words.join("");
  if (letters !== letters.toUpperCase()) return words.every((word) => word.length > LONGEST_WORD);
  // In capitals: one run, or UniProt's blocks of ten, of which the last may be short.
  return letters.length > 10 && words.slice(0, -1).every((word) => word.length >= LONG_WORD);
}

export function isAccession(text) {
  return ACCESSION.test(text);
}

/** What is wrong with a question before it is sent. */
export class QuestionError extends Error {}

/** The records of FASTA: `{name, sequence}` each. */
export function readFasta(text) {
  const records = [];
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith(">")) {
      const word = line.slice(1).trim().split(/\s+/)[0];
      // >sp|P69905|HBA_HUMAN is named P69905.
      const name = word.split("|")[1] || word || `record ${records.length + 1}`;
      records.push({ name, sequence: "" });
    } else if (records.length > 0) {
      records.at(-1).sequence += line.trim();
    } else if (line.trim()) {
      throw new QuestionError("FASTA: a record begins with a line such as >P69905.");
    }
  }
  const empty = records.find((record) => !record.sequence);
  if (empty) throw new QuestionError(`FASTA: the record ${empty.name} has no sequence.`);
  if (records.length === 0) throw new QuestionError("FASTA: there is no record; one begins with a line such as >P69905.");
  return records;
}

/** The fields of POST /v1/search that say what is asked. */
export function fieldsOf({ question, kind }) {
  const text = question.trim();
  if (!text) throw new QuestionError("The question is empty.");
  if (kind !== "fasta") return { [kind]: text };
  return { queries: readFasta(text) };
}
