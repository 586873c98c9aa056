// What each residue of a hit has to do with a function: POST /v1/explain as a profile and as coloured residues.

import { ask } from "./api.js";
import { draw, fixed, make } from "./dom.js";
import { readFasta } from "./question.js";

const BLOCK = 10;
const LEVELS = 4;
const [WIDTH, HEIGHT] = [1000, 72];
const STRONGEST = 0.1;

const METHODS = {
  occlusion: {
    title: "Occlusion",
    meaning: ({ window }) =>
      `How much the cosine falls when the ${window} residues round this one are hidden; below 0 it rises.`,
  },
  segments: { title: "Segment", meaning: () => "Share of the residue in the segment that the text is aligned with (PDA)." },
};

/**
 * The panel of a hit.
 *
 * Args: `hit`; `about`, the function that is asked for, or "" where the user has to say it; `index`, its name or null;
 * `request`, what `ask` needs to reach the server; `onAsked(about)`, told which function is shown; `show(error)`, an
 * error as an element.
 */
export function residuesPanel({ hit, about, index, request, onAsked, show }) {
  const panel = make("div", { class: "residues" });
  const text = make("textarea", { rows: 1, class: "about", "aria-label": "Function to explain", spellcheck: "false" });
  text.value = about;
  const run = make("button", { type: "submit" }, "Show residues");
  const result = make("div", { class: "explained", "aria-live": "polite" });
  const form = make("form", { class: "explain", onsubmit: (event) => (event.preventDefault(), explain()) },
    make("label", {}, make("span", {}, "Function"), text), run);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      explain();
    }
  });
  panel.append(form, result);
  let pasted = null;
  let controller = null;

  async function explain() {
    const asked = text.value.trim();
    if (!asked) {
      result.replaceChildren(make("p", { class: "hint" }, "Say a function: the question is none."));
      text.focus();
      return;
    }
    controller?.abort();
    controller = new AbortController();
    const { signal } = controller;
    const state = make("span", {}, "Looking at each residue…");
    result.replaceChildren(make("p", { class: "hint" }, make("span", { class: "spinner" }), state));
    const waiting = { ...request, signal, onWait: (left, why) => { state.textContent = `${why} Again in ${left} s.`; } };
    try {
      const known = pasted ?? (await ask(`v1/proteins/${encodeURIComponent(hit.accession)}${index ? `?index=${encodeURIComponent(index)}` : ""}`, waiting)).sequence;
      if (!known) {
        result.replaceChildren(pasteForm());
        return;
      }
      const whose = pasted ? { sequence: pasted } : { accession: hit.accession };
      const explanation = await ask("v1/explain", { ...waiting, body: { text: asked, ...whose, ...(index && { index }) } });
      onAsked(asked);
      result.replaceChildren(...heatMap(explanation));
    } catch (error) {
      if (error.name !== "AbortError") result.replaceChildren(show(error));
    }
  }

  function pasteForm() {
    const box = make("textarea", { rows: 4, class: "paste", "aria-label": `Sequence of ${hit.accession}`, spellcheck: "false" });
    const problem = make("p", { class: "hint" });
    const use = () => {
      try {
        const given = box.value.trim();
        pasted = (given.startsWith(">") ? readFasta(given)[0].sequence : given).replace(/\s+/g, "");
        if (pasted) explain();
      } catch (error) {
        problem.textContent = error.message;
      }
    };
    return make("div", {},
      make("p", { class: "hint" }, `The server does not know the sequence of ${hit.accession}. Paste it here, as letters or FASTA.`),
      box, make("button", { type: "button", onclick: use }, "Use this sequence"), problem);
  }

  panel.stop = () => controller?.abort();
  if (about) explain();
  return panel;
}

function heatMap(explanation) {
  const methods = Object.keys(METHODS).filter((name) => explanation[name]);
  const body = make("div");
  const choose = (name) => {
    body.replaceChildren(...drawn(explanation, name));
    for (const button of choices) button.setAttribute("aria-pressed", String(button.dataset.method === name));
  };
  const choices = methods.map((name) =>
    make("button", { type: "button", "data-method": name, onclick: () => choose(name) }, METHODS[name].title));
  choose(methods[0]);
  return [methods.length > 1 && make("div", { class: "choices" }, choices), body].filter(Boolean);
}

function drawn(explanation, method) {
  const { residues, length, stride } = explanation;
  const values = explanation[method];
  const top = Math.max(...values.map(Math.abs)) || 1;
  const readout = make("output", { class: "readout" });
  const tell = (i) => {
    readout.textContent = i === null ? "" : `${residues[i]}${i + 1}  ${signed(values[i])}`;
    mark.setAttribute("visibility", i === null ? "hidden" : "visible");
    if (i !== null) mark.setAttribute("x", ((i * WIDTH) / values.length).toFixed(2));
  };
  const mark = draw("rect", { class: "mark", y: 0, height: HEIGHT, width: (WIDTH / values.length).toFixed(2), visibility: "hidden" });

  const strongest = stretches(values);
  const says = strongest.map(({ start, end, value }) => `${start === end ? start : `${start}–${end}`} (${signed(value)})`).join(", ");
  const profile = draw("svg", {
    class: "profile",
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": `Profile along the protein. Strongest residues: ${says || "none"}.`,
    onpointermove: (event) => {
      const box = profile.getBoundingClientRect();
      tell(Math.min(values.length - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * values.length))));
    },
    onpointerleave: () => tell(null),
  }, ...bars(values, top), mark);

  const sequence = make("div", {
    class: "sequence",
    role: "img",
    "aria-label": `${residues.length} residues, coloured by their number.`,
    onpointerover: (event) => tell(event.target.dataset.i === undefined ? null : Number(event.target.dataset.i)),
    onpointerleave: () => tell(null),
  });
  for (let start = 0; start < residues.length; start += BLOCK) {
    const letters = [...residues.slice(start, start + BLOCK)];
    sequence.append(make("span", { class: "block" },
      make("span", { class: "position" }, String(Math.min(start + BLOCK, residues.length))),
      make("span", { class: "letters" },
        letters.map((letter, j) => make("span", { class: levelOf(values[start + j] / top), "data-i": start + j }, letter)))));
  }
  const cut = residues.length < length;
  const notes = [
    METHODS[method].meaning(explanation),
    method === "occlusion" && stride > 1 && `Looked at every ${ordinal(stride)} residue, so that the answer comes in time.`,
    cut && `The model sees the first ${residues.length} of ${length} residues.`,
  ].filter(Boolean);
  return [
    make("p", { class: "summary" }, says ? [make("b", {}, "Strongest residues "), says] : "No residue stands out."),
    profile,
    make("div", { class: "legend" }, scale(top, values), readout),
    sequence,
    make("p", { class: "hint" }, notes.join(" ")),
  ];
}

function bars(values, top) {
  const lowest = Math.min(0, ...values);
  const highest = Math.max(0, ...values, lowest + top / 100);
  const y = (value) => (HEIGHT * (highest - value)) / (highest - lowest);
  const width = WIDTH / values.length;
  const areas = ["above", "below"].map((side) => {
    const kept = values.map((value) => (side === "above" ? Math.max(0, value) : Math.min(0, value)));
    const steps = kept.map((value) => `V${y(value).toFixed(2)}h${width.toFixed(3)}`).join("");
    return draw("path", { class: side, d: `M0 ${y(0).toFixed(2)}${steps}V${y(0).toFixed(2)}z` });
  });
  return [...areas, draw("path", { class: "zero", d: `M0 ${y(0).toFixed(2)}h${WIDTH}` })];
}

function scale(top, values) {
  const steps = Array.from({ length: 2 * LEVELS + 1 }, (_, i) => i - LEVELS).filter((i) => i >= 0 || Math.min(...values) < 0);
  return make("span", { class: "scale", "aria-hidden": "true" },
    Math.min(...values) < 0 ? signed(-top) : "0",
    make("span", { class: "swatches" }, steps.map((i) => make("span", { class: levelOf(i / LEVELS) }))),
    signed(top));
}

/** The class of a residue's colour, by its share of the largest number. */
function levelOf(share) {
  const level = Math.round(Math.abs(share) * LEVELS);
  return level === 0 ? "none" : `${share > 0 ? "for" : "against"}-${level}`;
}

/** The runs of the strongest tenth of the residues that are above 0, the strongest first, counted from 1. */
export function stretches(values) {
  const least = [...values].sort((a, b) => b - a)[Math.ceil(values.length * STRONGEST) - 1];
  const found = [];
  for (const [i, value] of values.entries()) {
    if (value <= 0 || value < least) continue;
    const last = found.at(-1);
    if (last?.end === i) Object.assign(last, { end: i + 1, value: Math.max(last.value, value) });
    else found.push({ start: i + 1, end: i + 1, value });
  }
  return found.sort((a, b) => b.value - a.value);
}

const signed = (value) => `${value < 0 ? "" : "+"}${fixed(value, 4)}`;

const ordinal = (n) => `${n}${["th", "st", "nd", "rd"][n % 100 > 10 && n % 100 < 14 ? 0 : n % 10] ?? "th"}`;
