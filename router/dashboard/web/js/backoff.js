// How long to wait until something is tried again: longer each time, and never all at once. No DOM.

const FIRST = 500;
const LONGEST = 30_000;

/**
 * @param {number} failures  How often it has failed in a row, from 1 on.
 * @param {number} chance  From 0 to 1.
 * @returns {number} milliseconds, between half and all of what doubles up to 30 s
 */
export function delay(failures, chance) {
  const whole = Math.min(LONGEST, FIRST * 2 ** Math.min(Math.max(failures, 1) - 1, 10));
  return Math.round(whole * (0.5 + 0.5 * chance));
}
