// Which page an address is. No DOM.

const PAGES = { "/": "fleet", "/logs": "logs", "/levels": "levels", "/destinations": "destinations", "/sign-in": "sign-in" };

/** The page of a path, also of one that does not exist: the fleet; `null` for what is not a page. */
export function pageOf(path) {
  if (path.startsWith("/api/") || path.startsWith("/assets/") || path === "/metrics") return null;
  if (/^\/devices\/[^/]+$/.test(path)) return "device";
  return PAGES[path] ?? "fleet";
}

/** The device that a path names. */
export const deviceOf = (path) => decodeURIComponent(path.split("/")[2] ?? "");
