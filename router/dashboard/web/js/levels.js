// Which level is in force for a group, and what comes after it: the rules of the router as far as they concern
// groups and the default. What decides for a device is asked of the router. No DOM.

export const LEVELS = ["DEBUG", "INFO", "WARN", "ERROR", "DISABLED"];

/**
 * @typedef {object} Force
 * @property {string} level
 * @property {string} from  `default`, the name of a group, or "" when nothing is set.
 * @property {string} [until]  RFC 3339, of a temporary level.
 * @property {boolean} [off]  All logs are switched off.
 */

const runs = (override, time) => Boolean(override) && Date.parse(override.until) > time;

/**
 * @param {string | null} name  A group; `null` for the default.
 * @param {{groups: Map<string, object>, standard: object | null, standardOverride: object | null}} fleet
 * @param {number} time  Milliseconds.
 * @returns {Force}
 */
export function inForce(name, { groups, standard, standardOverride }, time) {
  if (standard?.disabled) return { level: "DISABLED", from: "default", off: true };
  const group = name === null ? null : groups.get(name);
  // The nearest first; those above it that the caller may not see are not there.
  const chain = group ? [group, ...(group.ancestors ?? []).map((above) => groups.get(above)).filter(Boolean)] : [];
  const temporary = chain.find((member) => runs(member.override, time));
  if (temporary) return { level: temporary.override.level, from: temporary.name, until: temporary.override.until };
  if (runs(standardOverride, time)) return { level: standardOverride.level, from: "default", until: standardOverride.until };
  const lasting = chain.find((member) => member.level);
  if (lasting) return { level: lasting.level, from: lasting.name };
  return standard?.level ? { level: standard.level, from: "default" } : { level: "INFO", from: "" };
}

/** What is in force when a temporary level ends, `null` for one that lasts. */
export function fallback(name, fleet, force) {
  return force.until ? inForce(name, fleet, Date.parse(force.until)) : null;
}

/**
 * Groups as a tree: those without a parent that is there first, by name.
 * @returns {{group: object, depth: number}[]}
 */
export function tree(groups) {
  const children = new Map();
  const top = [];
  for (const group of groups.values()) {
    const above = groups.has(group.parent) ? group.parent : null;
    if (above === null) top.push(group);
    else children.set(above, [...(children.get(above) ?? []), group]);
  }
  const rows = [];
  const byName = (a, b) => (a.name < b.name ? -1 : 1);
  const walk = (list, depth) => {
    for (const group of list.sort(byName)) {
      rows.push({ group, depth });
      walk(children.get(group.name) ?? [], depth + 1);
    }
  };
  walk(top, 0);
  return rows;
}

/**
 * Levels of sources as people write them: `nginx=ERROR, app=DEBUG`.
 * @returns {Record<string, string>} or throws an `Error` that says what is wrong
 */
export function parseSources(text) {
  const sources = {};
  for (const part of text.split(",").map((piece) => piece.trim()).filter(Boolean)) {
    const [, name, level] = /^([^=\s]+)\s*=\s*(\w+)$/.exec(part) ?? [];
    if (!LEVELS.includes(level?.toUpperCase())) throw new Error(`Sources: "${part}" must be like nginx=ERROR, with one of ${LEVELS.join(", ")}.`);
    sources[name] = level.toUpperCase();
  }
  return sources;
}

/** The same the other way round. */
export const sourcesText = (sources) => Object.entries(sources ?? {}).map(([name, level]) => `${name}=${level}`).join(", ");
