// Makes elements. Text becomes text nodes and never markup, so what devices wrote stays text.

const SVG = "http://www.w3.org/2000/svg";
/** Properties that are set as such; everything else is an attribute. */
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "indeterminate", "selected", "tabIndex", "className"]);

/**
 * @param {string} tag
 * @param {Record<string, unknown>} [props]  `on…` listens, `null`, `undefined` and `false` are left out.
 * @param {...unknown} children  Nodes, texts, lists of them; `null` and `false` are left out.
 */
export function h(tag, props, ...children) {
  return filled(document.createElement(tag), props, children);
}

/** The same for parts of pictures. */
export function s(tag, props, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

function filled(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) add(element, child);
    else element.append(child);
  }
}

/** Replaces what is in an element. */
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

const ICONS = {
  pause: "M6 4v12M14 4v12",
  play: "M6 4l10 6-10 6z",
  down: "M10 3v13M4.5 10.5L10 16l5.5-5.5",
  link: "M8.5 11.5l3-3M7 9L4.6 11.4a3 3 0 104 4.2L11 13.3M13 11l2.4-2.4a3 3 0 00-4.2-4.2L9 6.7",
  save: "M10 3v9.5M6 9l4 4 4-4M4 16.5h12",
  trash: "M4 6h12M8 6V4h4v2M6 6l.7 10.5h6.6L14 6",
  out: "M12 6V4H4v12h8v-2M8 10h9M14 7l3 3-3 3",
  search: "M9 15A6 6 0 109 3a6 6 0 000 12zM13.5 13.5L17 17",
  close: "M5 5l10 10M15 5L5 15",
  sun: "M10 13.5a3.5 3.5 0 100-7 3.5 3.5 0 000 7zM10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1.1 1.1M14.6 14.6l1.1 1.1M15.7 4.3l-1.1 1.1M5.4 14.6l-1.1 1.1",
  moon: "M16.5 11.8A7 7 0 018.2 3.5a7 7 0 108.3 8.3z",
  zoomOut: "M9 15A6 6 0 109 3a6 6 0 000 12zM13.5 13.5L17 17M6.5 9h5",
  more: "M5 10h.01M10 10h.01M15 10h.01",
  fleet: "M4 4h5v5H4zM11 4h5v5h-5zM4 11h5v5H4zM11 11h5v5h-5z",
  logs: "M3 5h9M3 8.5h14M3 12h7M3 15.5h11",
  levels: "M5 3v5M5 12v5M3 10h4M10 3v2M10 9v8M8 7h4M15 3v8M15 15v2M13 13h4",
  destinations: "M3 10h5M8 10c4 0 2-5 8-5M8 10c4 0 2 5 8 5M14 3l2.5 2L14 7M14 13l2.5 2-2.5 2",
  left: "M12 4l-6 6 6 6",
  right: "M8 4l6 6-6 6",
  filter: "M3 5h14M6 10h8M8.5 15h3",
};

/** A picture that says nothing by itself; who uses it gives the name. */
export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 20 20", "aria-hidden": "true", focusable: "false" }, s("path", { d: ICONS[name] }));
}

/** A button with a picture and, unless it is in `label` alone, a text. */
export function button(label, { icon: picture, quiet, ...props } = {}, text = label) {
  const shown = quiet ? null : text;
  return h(
    "button",
    { type: "button", "aria-label": shown === label ? null : label, title: quiet ? label : null, ...props },
    picture && icon(picture),
    shown && h("span", null, shown),
  );
}

let ids = 0;
/** An id for an element that another refers to. */
export const id = (what) => `${what}-${(ids += 1)}`;

/** Elements for the pieces of a text: see `pieces` of text.js. */
export function shown(pieces) {
  return pieces.map((piece) => {
    if (piece.kind === "hit") return h("mark", null, piece.text);
    if (piece.kind === "text") return piece.text;
    return h(piece.hit ? "mark" : "span", { class: "escape" }, piece.text);
  });
}
