// Text that devices wrote, made fit to be shown: control characters visible, matches found, long ones cut.
// Pieces become text nodes, never markup. No DOM.

/** @typedef {{kind: "text" | "hit" | "escape", text: string, hit?: boolean}} Piece */

/**
 * What shows nothing or turns the direction of what follows: controls, bidirectional marks, joiners,
 * halves of characters. Whole pairs come first, to be passed over.
 */
const UNSEEN = /[\ud800-\udbff][\udc00-\udfff]|[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]/g;
const SHORT = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0" };
/**
 * Characters in which a pattern is looked for, by how many of its quantifiers have no bound: each multiplies the
 * time by the length. Patterns with more are not looked for at all.
 */
const LOOKED_AT = [20_000, 4000, 400];
/** Characters before a match that comes late. */
const LEAD = 30;
/** Most matches that are marked in one text. */
const MOST_HITS = 200;

/** How an unseen character is written. */
export function escaped(character) {
  if (character in SHORT) return SHORT[character];
  const code = character.codePointAt(0);
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
}

/**
 * What finds the matches of a search in a text, as the router does: `null` when there is nothing to mark or
 * the pattern cannot be used here.
 * @param {{text: string, regex: boolean, exact: boolean}} search
 * @returns {RegExp | null}
 */
export function matcher({ text, regex, exact }) {
  if (!text) return null;
  const flags = exact ? "gu" : "giu";
  if (!regex) return new RegExp(quoted(text), flags);
  if (isDear(text)) return null;
  try {
    return new RegExp(text, flags);
  } catch {
    return null;
  }
}

/** A text as a pattern that finds just it. */
export const quoted = (text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

/** A pattern without its escapes and classes of characters. */
const bare = (pattern) => pattern.replace(/\\./gs, "x").replace(/\[[^\]]*\]/g, "x");

/** How many quantifiers have no bound, or one of hundreds. */
const repeats = (plain) => plain.match(/[*+]|\{\d+,(?:\d{3,})?\}/g)?.length ?? 0;

/**
 * Whether a pattern repeats what itself repeats or branches: browsers may then take time that doubles with
 * every character; or repeats too many parts one behind the other. The router's patterns take no longer.
 */
export function isDear(pattern) {
  const plain = bare(pattern);
  if (repeats(plain) >= LOOKED_AT.length) return true;
  return /\([^()]*[*+{|][^()]*\)[*+{]/.test(plain) || /\(.*\(.*\).*\)[*+{]/.test(plain);
}

/** Where the matches are: `[from, to]` pairs. */
export function hits(text, pattern) {
  const found = [];
  if (!pattern) return found;
  const looked = text.slice(0, LOOKED_AT[repeats(bare(pattern.source))] ?? 0);
  pattern.lastIndex = 0;
  for (let match = pattern.exec(looked); match && found.length < MOST_HITS; match = pattern.exec(looked)) {
    if (match[0] === "") pattern.lastIndex += 1;
    else found.push([match.index, match.index + match[0].length]);
  }
  return found;
}

/**
 * A text as pieces: plain, marked, and escapes of what would not be seen.
 * @param {string} text
 * @param {RegExp | null} pattern
 * @param {boolean} [lines]  Line breaks and tabs stay as they are.
 * @returns {Piece[]}
 */
export function pieces(text, pattern, lines = false) {
  const out = [];
  let from = 0;
  for (const [start, end] of hits(text, pattern)) {
    split(text.slice(from, start), false, lines, out);
    split(text.slice(start, end), true, lines, out);
    from = end;
  }
  split(text.slice(from), false, lines, out);
  return out;
}

function split(text, hit, lines, out) {
  let from = 0;
  for (const match of text.matchAll(UNSEEN)) {
    const character = match[0];
    if (character.length === 2 || (lines && (character === "\n" || character === "\t"))) continue;
    if (match.index > from) out.push({ kind: hit ? "hit" : "text", text: text.slice(from, match.index) });
    out.push({ kind: "escape", text: escaped(character), hit });
    from = match.index + character.length;
  }
  if (from < text.length) out.push({ kind: hit ? "hit" : "text", text: text.slice(from) });
}

/** A text without anything unseen, for names, titles and attributes of elements. */
export const visible = (text) => pieces(String(text), null).map((piece) => piece.text).join("");

/**
 * As much of a text as a row shows: its beginning, or what is around the first match when that comes late.
 * @param {string} text
 * @param {RegExp | null} pattern
 * @param {number} most  Characters.
 */
export function excerpt(text, pattern, most) {
  const [first] = pattern ? hits(text, pattern) : [];
  const from = first && first[0] > 4 * LEAD ? whole(text, first[0] - LEAD) : 0;
  const to = whole(text, Math.min(text.length, from + most));
  return { text: text.slice(from, to), before: from > 0, after: to < text.length };
}

/** An index that does not cut a character in two. */
function whole(text, index) {
  const code = text.charCodeAt(index);
  return code >= 0xdc00 && code <= 0xdfff ? index - 1 : index;
}

/** The beginning of a long text, whole characters only. */
export const cut = (text, most) => (text.length > most ? text.slice(0, whole(text, most)) : text);
