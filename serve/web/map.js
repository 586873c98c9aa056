// Where the hits lie to each other: the first two principal components of their embeddings, as the server gives them.

import { draw, page } from "./dom.js";

const SIZE = 300;
const MARGIN = 16;
const FEWEST = 3;
/** Lengths of the scale bar, in the unit of the map. */
const BARS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1];

export class HitMap {
  /** `onPoint(hit)` is told which point is looked at, or null; `onOpen(hit)` which is clicked on. */
  constructor({ onPoint, onOpen }) {
    this.onPoint = onPoint;
    this.onOpen = onOpen;
  }

  show({ map, hits }) {
    const shown = map !== null && hits.length >= FEWEST;
    page.map.hidden = !shown;
    this.points = new Map();
    if (!shown) return;
    const [xs, ys] = [0, 1].map((axis) => map.map((place) => place[axis]));
    const middle = (values) => (Math.min(...values) + Math.max(...values)) / 2;
    const width = (values) => Math.max(...values) - Math.min(...values);
    // One scale for both axes: what is twice as far looks so.
    const scale = (SIZE - 2 * MARGIN) / (Math.max(width(xs), width(ys)) || 1);
    const place = (value, values, sign) => SIZE / 2 + sign * scale * (value - middle(values));
    // The best last, so that none of the others covers it.
    for (const [i, hit] of [...hits.entries()].reverse()) {
      const share = hits.length > 1 ? i / (hits.length - 1) : 0;
      const point = draw("circle", {
        cx: place(xs[i], xs, 1).toFixed(1),
        cy: place(ys[i], ys, -1).toFixed(1),
        r: 5,
        class: `level-${Math.min(4, Math.floor(share * 5))}`,
        onpointerenter: () => this.onPoint(hit),
        onpointerleave: () => this.onPoint(null),
        onclick: () => this.onOpen(hit),
      }, draw("title", {}, `${hit.rank}. ${hit.accession} ${hit.name ?? ""}`));
      this.points.set(hit, point);
    }
    this.label = draw("text", { class: "label" });
    const bar = BARS.findLast((length) => length * scale <= SIZE / 3) ?? BARS[0];
    const end = MARGIN + bar * scale;
    page.plot.replaceChildren(
      ...this.points.values(),
      draw("path", { class: "bar", d: `M${MARGIN} ${SIZE - 8}v4H${end.toFixed(1)}v-4` }),
      draw("text", { class: "unit", x: (end + 6).toFixed(1), y: SIZE - 3 }, String(bar)),
      this.label,
    );
  }

  /** Mark the point of a hit. */
  point(hit) {
    for (const [other, point] of this.points) point.classList.toggle("pointed", other === hit);
    const point = this.points.get(hit);
    if (!this.label) return;
    this.label.textContent = point ? `${hit.rank}. ${hit.accession}` : "";
    if (!point) return;
    const x = Number(point.getAttribute("cx"));
    const left = x > SIZE / 2;
    this.label.setAttribute("x", x + (left ? -10 : 10));
    this.label.setAttribute("y", Number(point.getAttribute("cy")) + 4);
    this.label.setAttribute("text-anchor", left ? "end" : "start");
  }
}
