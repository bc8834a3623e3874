// Counts over time as bars: how wide a step is, which bars there are, and how far one zooms. No DOM.

const SECOND = 1000;
const WIDTHS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800].map((s) => s * SECOND);
/** What the histogram shows without bounds, one behind the other on zooming out, ms. */
const SPANS = [60, 300, 900, 3600, 21_600, 86_400, 3 * 86_400, 7 * 86_400, 30 * 86_400].map((s) => s * SECOND);
export const NAMES = ["debug", "info", "warn", "error"];

/** The width of a step with which a range has at most so many, ms. */
export function stepFor(range, most) {
  return WIDTHS.find((width) => range / width <= most) ?? Math.ceil(range / most / WIDTHS.at(-1)) * WIDTHS.at(-1);
}

/** The next range that the histogram has without bounds. */
export const widerSpan = (range) => SPANS.find((span) => span > range) ?? SPANS.at(-1);

/** The range in which a time lies that is so long ago, at least `range`. */
export const spanWith = (age, range) => (age <= range ? range : SPANS.find((span) => span >= age) ?? SPANS.at(-1));

/**
 * A bar for every step, also where nothing was logged.
 * @param {{time: string, debug: number, info: number, warn: number, error: number}[]} items  Steps with events.
 * @returns {{at: number, counts: number[], total: number}[]}
 */
export function bars(items, from, until, step) {
  const known = new Map(items.map((item) => [Math.floor(Date.parse(item.time) / step), NAMES.map((name) => item[name] ?? 0)]));
  const out = [];
  for (let at = Math.floor(from / step); at * step < until; at += 1) {
    const counts = known.get(at) ?? [0, 0, 0, 0];
    out.push({ at: at * step, counts, total: counts.reduce((sum, count) => sum + count, 0) });
  }
  return out;
}

/** Twice a range around its middle, not beyond `now`. */
export function wider(from, until, now) {
  const range = until - from;
  const end = Math.min(now, until + range / 2);
  return { from: end - 2 * range, until: end };
}

/** How high a bar is, 0 to 1: by the square root, so that a few are seen beside many. */
export const height = (total, most) => (total === 0 ? 0 : Math.max(0.04, Math.sqrt(total / most)));
