// Numbers as people read them, and rates out of counters. No DOM.

/** `1,204`, in the same way everywhere. */
export const whole = (number) => String(Math.round(number)).replace(/\B(?=(\d{3})+(?!\d))/g, ",");

/** `999`, `1.2k`, `34k`, `5.6M` */
export function short(number) {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (number >= size * 0.9995) {
      const scaled = number / size;
      return `${scaled < 9.95 ? scaled.toFixed(1) : Math.round(scaled)}${unit}`;
    }
  }
  return number > 0 && number < 9.95 && !Number.isInteger(number) ? number.toFixed(1) : String(Math.round(number));
}

/** `512 B`, `1.2 KiB`, `34 MiB` */
export function bytes(number) {
  let unit = 0;
  while (number >= 1024 && unit < 4) {
    number /= 1024;
    unit += 1;
  }
  const digits = unit > 0 && number < 10 ? 1 : 0;
  return `${number.toFixed(digits)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

/** `340 ms`, `2.1 s`, `3 min` of a lag. */
export function lag(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return ms < 3_600_000 ? `${Math.round(ms / 60_000)} min` : `${(ms / 3_600_000).toFixed(1)} h`;
}

/** Rates a second of counters that are looked at now and then; a counter that fell has begun anew. */
export class Rates {
  #seen = new Map();

  /**
   * @param {string} key
   * @param {number} value  The counter.
   * @param {number} now  Milliseconds.
   * @returns {number | null} a second; `null` at the first look
   */
  rate(key, value, now) {
    const before = this.#seen.get(key);
    this.#seen.set(key, { value, now });
    if (!before || now <= before.now) return null;
    return (Math.max(0, value - (value < before.value ? 0 : before.value)) * 1000) / (now - before.now);
  }
}
