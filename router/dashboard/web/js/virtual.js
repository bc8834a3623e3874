// A list of rows of one height of which only those in sight are there. Rows are used again as one scrolls.

/** Rows that are there beyond those in sight, on either side. */
const BEYOND = 12;

export class VirtualList {
  #pool = [];
  #frame = 0;
  #height = 0;

  /**
   * @param {HTMLElement} scroller
   * @param {HTMLElement} sizer  As high as all rows together.
   * @param {object} rows
   * @param {() => number} rows.count
   * @param {() => HTMLElement} rows.make
   * @param {(row: HTMLElement, index: number) => void} rows.show
   * @param {() => void} rows.moved  Told when what is in sight may have changed.
   */
  constructor(scroller, sizer, rows) {
    this.scroller = scroller;
    this.sizer = sizer;
    this.rows = rows;
    this.rowHeight = 24;
    scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    this.observer = new ResizeObserver(() => this.measure());
    this.observer.observe(scroller);
    this.measure();
  }

  close() {
    this.observer.disconnect();
    cancelAnimationFrame(this.#frame);
  }

  /** Takes the height of rows from the style sheet: narrow screens have higher ones. */
  measure() {
    const height = parseFloat(getComputedStyle(this.scroller).getPropertyValue("--row")) || 24;
    const bottom = this.isAtEnd;
    this.#height = this.scroller.clientHeight;
    if (height !== this.rowHeight) {
      const first = this.scroller.scrollTop / this.rowHeight;
      this.rowHeight = height;
      this.resize();
      this.scroller.scrollTop = first * height;
    }
    if (bottom) this.toEnd();
    this.draw();
  }

  resize() {
    this.sizer.style.height = `${this.rows.count() * this.rowHeight}px`;
  }

  get first() {
    return Math.floor(this.scroller.scrollTop / this.rowHeight);
  }

  get last() {
    return Math.min(this.rows.count(), Math.ceil((this.scroller.scrollTop + this.#height) / this.rowHeight)) - 1;
  }

  /** Rows that fit. */
  get page() {
    return Math.max(1, Math.floor(this.#height / this.rowHeight) - 1);
  }

  get isAtEnd() {
    return this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight < this.rowHeight;
  }

  toEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  /** Scrolls as little as it takes for a row to be seen whole. */
  reveal(index) {
    const top = index * this.rowHeight;
    const { scrollTop } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (top + this.rowHeight > scrollTop + this.#height) this.scroller.scrollTop = top + this.rowHeight - this.#height;
    this.draw();
  }

  /** Scrolls a row into the middle. */
  centre(index) {
    this.scroller.scrollTop = Math.max(0, (index + 0.5) * this.rowHeight - this.#height / 2);
    this.draw();
  }

  /** Draws with the next frame. */
  draw() {
    if (!this.#frame) this.#frame = requestAnimationFrame(() => this.now());
  }

  /** Draws at once. */
  now() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const count = this.rows.count();
    const from = Math.max(0, this.first - BEYOND);
    const to = Math.min(count, this.last + 1 + BEYOND);
    const wanted = Math.ceil(this.#height / this.rowHeight) + 2 * BEYOND + 2;
    while (this.#pool.length < wanted) this.#grow();
    // A row keeps its element while it is in sight, so that scrolling touches only what comes in.
    const size = this.#pool.length;
    const used = new Set();
    for (let index = from; index < to; index += 1) {
      const row = this.#pool[index % size];
      used.add(index % size);
      row.hidden = false;
      row.style.transform = `translateY(${index * this.rowHeight}px)`;
      this.rows.show(row, index);
    }
    this.#pool.forEach((row, slot) => {
      if (!used.has(slot)) row.hidden = true;
    });
    this.rows.moved();
  }

  #grow() {
    const row = this.rows.make();
    row.hidden = true;
    this.#pool.push(row);
    this.sizer.append(row);
  }
}
