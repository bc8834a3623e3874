// The dialog for downloads: the same conditions as a file.

import { address } from "../api.js";
import { button, h, icon } from "../dom.js";
import { conditions } from "../question.js";
import { dialog } from "../tell.js";

export function download(question) {
  return dialog("Download these events", (close) => {
    const format = select("Format", [["ndjson", "NDJSON: all fields, one event a line"], ["text", "Text: one line an event"]]);
    const order = select("Order", [["oldest", "Oldest first"], ["newest", "Newest first"]]);
    const gzip = h("input", { type: "checkbox", checked: true });
    const link = h("a", { class: "button primary", download: "", onclick: () => setTimeout(close) }, icon("save"), h("span", null, "Download"));
    const point = () => {
      link.href = address("logs/download", { ...conditions(question), format: format.input.value, order: order.input.value, gzip: gzip.checked ? "true" : "" });
    };
    for (const input of [format.input, order.input, gzip]) input.addEventListener("change", point);
    point();
    return [
      h("p", null, "Everything that fits the conditions and the time, not only what is on screen. The file comes while it is searched for."),
      format.whole, order.whole, h("label", { class: "check" }, gzip, " Compressed (gzip)"),
      h("footer", null, button("Cancel", { onclick: () => close() }), link),
    ];
  });
}

function select(label, options) {
  const input = h("select", null, options.map(([value, text]) => h("option", { value }, text)));
  return { input, whole: h("label", { class: "field" }, h("span", null, label), input) };
}
