// Server-sent events as they come in pieces (WHATWG HTML, section 9.2). No DOM.

/** Longest message that is put together, in characters; what is longer is left out. */
const LONGEST = 8 * 1024 * 1024;

export class Messages {
  /** The id that was told last: where a new connection goes on. */
  lastId = "";
  #rest = "";
  #data = [];
  #size = 0;
  #type = "";

  /**
   * Takes a piece of the stream.
   * @param {string} text
   * @returns {{type: string, data: string}[]} the messages that are complete with it
   */
  take(text) {
    const messages = [];
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    for (let line of lines) {
      if (line.endsWith("\r")) line = line.slice(0, -1);
      if (line === "") this.#finish(messages);
      else this.#field(line);
    }
    if (this.#rest.length > LONGEST) throw new Error("a message of the stream is too long");
    return messages;
  }

  #field(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (name === "data" && this.#size < LONGEST) {
      this.#data.push(value);
      this.#size += value.length;
    } else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.lastId = value;
  }

  #finish(messages) {
    if (this.#data.length > 0) messages.push({ type: this.#type || "message", data: this.#data.join("\n") });
    this.#data = [];
    this.#size = 0;
    this.#type = "";
  }
}
