// The simple fields of the filter, and its text (docs/index.md). The text is what is asked; fields write it and read it.

const CLAUSES = [
  ["organism", /^organism_id\s*=\s*(\d+)$/i, (value) => `organism_id = ${value}`],
  ["reviewed", /^reviewed\s*=\s*(true|false)$/i, (value) => `reviewed = ${value}`],
  ["shortest", /^length\s*>=\s*(\d+)$/i, (value) => `length >= ${value}`],
  ["longest", /^length\s*<=\s*(\d+)$/i, (value) => `length <= ${value}`],
  ["ec", /^ec\s*=\s*([\dn.-]+)$/i, (value) => `ec = ${value}`],
];

/** The values of the fields, and in `rest` what none of them says. */
export function readFilter(text) {
  const trimmed = text.trim();
  const fields = { rest: "" };
  const rest = [];
  // Where there is an 'or', parentheses or quotes, it cannot be cut at each 'and'.
  const clauses = /[()"']|\bor\b/i.test(trimmed) ? [trimmed] : trimmed.replace(/\s+/g, " ").split(/ and /i).filter(Boolean);
  for (const clause of clauses) {
    const found = CLAUSES.find(([name, form]) => !(name in fields) && form.test(clause));
    if (found) fields[found[0]] = found[1].exec(clause)[1];
    else if (clause.toLowerCase() === "reviewed" && !("reviewed" in fields)) fields.reviewed = "true";
    else rest.push(clause);
  }
  fields.rest = rest.join(" and ");
  return fields;
}

/** The text of the fields, after the rest. */
export function writeFilter(fields) {
  const written = CLAUSES.filter(([name]) => fields[name]).map(([name, , write]) => write(fields[name]));
  if (!fields.rest) return written.join(" and ");
  const rest = written.length > 0 && /\bor\b/i.test(fields.rest) && !isWhole(fields.rest) ? `(${fields.rest})` : fields.rest;
  return [rest, ...written].join(" and ");
}

/** Whether one pair of parentheses is round all of it. */
function isWhole(text) {
  return /^\([^()]*\)$/.test(text);
}
