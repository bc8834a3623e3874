// What a browser remembers of its user: local time or UTC, colours, whether single keys act.

const KEY = "thinglog";
const USUAL = { utc: false, theme: "auto", keys: true };

function stored() {
  try {
    return { ...USUAL, ...JSON.parse(localStorage.getItem(KEY)) };
  } catch {
    return { ...USUAL };
  }
}

export const settings = stored();
/** Tells `changed`. */
export const changes = new EventTarget();

/** Changes some of them. Where nothing may be stored they hold until the page is left. */
export function set(change) {
  Object.assign(settings, change);
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // Private windows may forbid it.
  }
  document.documentElement.dataset.theme = settings.theme;
  changes.dispatchEvent(new Event("changed"));
}
