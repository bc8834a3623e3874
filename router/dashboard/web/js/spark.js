// A small picture of how much was logged when: bars, with errors in their colour.

import { bars, height } from "./bars.js";
import { s } from "./dom.js";

const HIGH = 20;

/**
 * @param {object[]} items  Steps of the API.
 * @param {{from: number, until: number, step: number}} range  Milliseconds.
 */
export function spark(items, { from, until, step }) {
  const all = bars(items, from, until, step);
  const most = Math.max(1, ...all.map((bar) => bar.total));
  const rects = all.flatMap((bar, index) => {
    if (bar.total === 0) return [];
    const high = height(bar.total, most) * HIGH;
    const wrong = bar.counts[3] > 0 ? Math.max(2, (high * bar.counts[3]) / bar.total) : 0;
    const rest = high - wrong;
    return [
      rest > 0 && s("rect", { x: index, y: HIGH - rest, width: 0.75, height: rest }),
      wrong > 0 && s("rect", { class: "is-error", x: index, y: HIGH - high, width: 0.75, height: wrong }),
    ];
  });
  return s("svg", { class: "spark", viewBox: `0 0 ${Math.max(1, all.length)} ${HIGH}`, preserveAspectRatio: "none", "aria-hidden": "true" }, rects);
}
