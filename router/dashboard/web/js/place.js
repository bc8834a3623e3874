// Places of events: `<time>-<row>` as the API names them. Time is in ns since the epoch, row counts what
// arrived. Events are ordered by both. No DOM.

/**
 * @typedef {object} Line  An event as it is kept here: what the API told, and its place taken apart.
 * @property {string} at  Nanoseconds since the epoch, too many for a number.
 * @property {number} row
 * @property {string} time  RFC 3339, UTC, nine decimals
 * @property {string} received
 * @property {string} device
 * @property {string} source
 * @property {string} level
 * @property {string} message
 * @property {Record<string, unknown>} [attributes]
 * @property {string} [id]
 * @property {boolean} [time_estimated]
 * @property {boolean} [truncated]
 */

/** Takes a place apart. `null` for what is none. */
export function parsePlace(text) {
  const match = /^(\d{1,20})-(\d{1,20})$/.exec(text ?? "");
  return match ? { at: match[1], row: Number(match[2]) } : null;
}

/** The text of a place. */
export const placeText = ({ at, row }) => `${at}-${row}`;

/** Orders places: negative when `a` is before `b`, zero for the same. */
export function compare(a, b) {
  if (a.at === b.at) return a.row - b.row;
  if (a.at.length !== b.at.length) return a.at.length - b.at.length;
  return a.at < b.at ? -1 : 1;
}

/** The cursor that is just before a place, so that a page of order `oldest` begins with it. */
export function cursorBefore({ at, row }) {
  return row > 0 ? `${at}-${row - 1}` : `${BigInt(at) - (at === "0" ? 0n : 1n)}-18446744073709551615`;
}

/** The place before all events of a time, in milliseconds. */
export const placeOfTime = (ms) => `${BigInt(Math.max(0, Math.trunc(ms))) * 1000000n}-0`;

/** When a place is, in milliseconds. */
export const timeOfPlace = ({ at }) => Number(BigInt(at) / 1000000n);

/** An event of the API as a line. */
export function lineOf(event) {
  const { place, ...line } = event;
  return Object.assign(line, parsePlace(place) ?? { at: "0", row: 0 });
}
