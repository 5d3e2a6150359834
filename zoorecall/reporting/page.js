// What the page does beyond being read: charts that answer pointer and keyboard, a table that
// sorts and filters, and the curves of the run that is chosen. All text goes in as text.
"use strict";

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const SVG = document.querySelector("svg").namespaceURI;
const MARGIN = { left: 46, right: 12, top: 10, bottom: 38 };

// Append a new element, of SVG if its parent is, and return it.
function add(parent, name, text, attributes = {}) {
  const drawn = name === "svg" || parent.namespaceURI === SVG;
  const node = drawn ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  return parent.appendChild(node);
}

// Round numbers from 0 on, about `count` of them.
function linearTicks(high, count) {
  const rough = high / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  return Array.from({ length: Math.floor(high / step + 1e-9) + 1 }, (_, i) => i * step);
}

// Powers of ten; a range that has none is marked at its ends.
function decadeTicks(low, high) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  if (last < first) return [...new Set([low, high])];
  return Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
}

const rate = (value) => value.toExponential(1).replace(".0e", "e").replace("+", "");
const whole = (value) => value.toLocaleString("en");
const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(1)} %`);
const nats = (value) => (value === null ? "–" : value.toPrecision(4));

// How a chart looks in a file of its own, which is for a light page.
const ALONE = [
  "text { fill: #57606a; font: 12px sans-serif } text.caption { fill: #1b1f24; font-weight: 600 }",
  ".line { fill: none; stroke: currentColor; stroke-width: 1.8 } .train { color: #57606a }",
  ".mark { fill: currentColor; stroke: #fff; stroke-width: 0.15 } .axis { stroke: #d0d7de }",
  ".seed { fill: none; stroke: currentColor } .solved { stroke: #57606a; stroke-dasharray: 1 3 }",
  ".fall { fill: #57606a; opacity: 0.25 } .dim { opacity: 0.12 }",
  ...data.looks.map(({ light }, i) => `.look${i} { color: ${light} }`),
].join("\n");

// Let the reader save a text as a file.
function offer(name, type, text) {
  const href = URL.createObjectURL(new Blob([text], { type })), link = document.createElement("a");
  Object.assign(link, { href, download: name.replace(/[^\w.-]+/g, "_") }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60000);
}

// A chart as wide as its place. A spec has `lines` (name, x, y, className; dashes, marker, each),
// the ends of x (`log` or not) and y, yTicks and yText, xName and yName, `falls` to shade, and
// `tip`, which gives the rows to show for an x: a caption, a heading, cells.
class Chart {
  constructor(parent, caption) {
    const figure = add(parent, "figure"), label = `${caption}; arrow keys read the values`;
    this.caption = caption;
    const save = add(add(figure, "figcaption", caption), "span", undefined, { class: "export" });
    for (const [kind, write] of [["SVG", () => this.svg()], ["CSV", () => this.csv()]]) {
      const button = add(save, "button", kind, { "aria-label": `save as ${kind}: ${caption}` });
      const name = `${document.title} ${this.caption}.${kind.toLowerCase()}`;
      const type = { SVG: "image/svg+xml", CSV: "text/csv" }[kind];
      button.addEventListener("click", () => offer(name, type, write()));
    }
    const named = { class: "chart", tabindex: 0, role: "group", "aria-label": label };
    this.box = add(figure, "div", undefined, named);
    this.tip = add(this.box, "div", undefined, { class: "tip", role: "status" });
    for (const name of ["pointermove", "pointerdown"])
      this.box.addEventListener(name, (event) => this.toPointer(event));
    for (const name of ["pointerleave", "blur"])
      this.box.addEventListener(name, () => this.leave());
    this.box.addEventListener("keydown", (event) => this.toKey(event));
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  show(spec) {
    this.spec = spec;
    this.xs = [...new Set(spec.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    this.draw();
  }

  x(value) {
    const { log, x: [low, high] } = this.spec, f = log ? Math.log10 : (v) => v;
    const share = high > low ? (f(value) - f(low)) / (f(high) - f(low)) : 0.5;
    return MARGIN.left + share * (this.right - MARGIN.left);
  }

  y(value) {
    const [low, high] = this.spec.y;
    return this.bottom - ((value - low) / (high - low)) * (this.bottom - MARGIN.top);
  }

  draw() {
    const { spec, box } = this, { clientWidth: width, clientHeight: height } = box;
    if (!spec || !width) return;
    this.leave();
    [this.width, this.right, this.bottom] = [width, width - MARGIN.right, height - MARGIN.bottom];
    const viewBox = `0 0 ${width} ${height}`, { right, bottom } = this;
    box.querySelector("svg")?.remove();
    const root = add(box, "svg", undefined, { viewBox, "aria-hidden": "true" });
    const stroke = (name, x1, x2, y1, y2) =>
      add(root, "line", undefined, { class: name, x1, x2, y1, y2 });
    const write = (text, x, y, anchor) => add(root, "text", text, { x, y, "text-anchor": anchor });
    for (const [start, end] of spec.falls || []) {
      const x = this.x(start), wide = Math.max(2, this.x(end) - x), tall = bottom - MARGIN.top;
      const place = { class: "fall", x, y: MARGIN.top, width: wide, height: tall };
      add(root, "rect", undefined, place);
    }
    for (const tick of spec.yTicks) {
      const y = this.y(tick);
      stroke("axis", MARGIN.left, right, y, y);
      write(spec.yText(tick), MARGIN.left - 6, y + 4, "end");
    }
    for (const tick of spec.log ? decadeTicks(...spec.x) : linearTicks(spec.x[1], width / 90)) {
      const x = this.x(tick), anchor = right - x < 14 ? "end" : "middle";
      stroke("axis", x, x, bottom, bottom + 4);
      write(spec.log ? rate(tick) : whole(tick), anchor === "end" ? right : x, bottom + 17, anchor);
    }
    write(spec.xName, (MARGIN.left + right) / 2, height - 4, "middle");
    if (spec.solved) stroke("solved", MARGIN.left, right, this.y(spec.solved), this.y(spec.solved));
    for (const line of spec.lines) this.drawLine(root, line);
    this.cursor = stroke("cursor", 0, 0, MARGIN.top, bottom);
    this.leave();
  }

  drawLine(root, { x, y, className, dashes = "none", marker, each }) {
    const group = add(root, "g", undefined, { class: className });
    const path = (name, d, more) => add(group, "path", undefined, { class: name, d, ...more });
    const at = (i, values) => `${this.x(x[i]).toFixed(1)} ${this.y(values[i]).toFixed(1)}`;
    for (const [i, seeds] of (each || []).entries()) {
      const dot = (value) => ({ class: "seed", cx: this.x(x[i]), cy: this.y(value), r: 2.2 });
      for (const value of seeds) if (value !== null) add(group, "circle", undefined, dot(value));
    }
    const known = [...x.keys()].filter((i) => y[i] !== null);
    const moved = (i) => (known.includes(i - 1) ? "L" : "M") + at(i, y);
    path("line", known.map(moved).join(""), { "stroke-dasharray": dashes });
    if (!marker) return;
    for (const i of known) path("mark", marker, { transform: `translate(${at(i, y)}) scale(4)` });
  }

  // The chart as a file of its own, with its caption above and what its lines are below.
  svg() {
    this.leave();
    const root = this.box.querySelector("svg").cloneNode(true), { lines } = this.spec;
    const height = this.bottom + MARGIN.bottom, all = 24 + height + 18 * lines.length;
    root.querySelector(".cursor").remove();
    root.setAttribute("viewBox", `0 -24 ${this.width} ${all}`);
    for (const [name, value] of [["width", this.width], ["height", all]])
      root.setAttribute(name, value);
    add(root, "text", this.caption, { class: "caption", x: 8, y: -8 });
    lines.forEach(({ name, className, dashes = "none", marker }, i) => {
      const y = height + 18 * i + 10, move = { transform: `translate(26 ${y}) scale(4)` };
      const group = add(root, "g", undefined, { class: className });
      const line = { class: "line", d: `M8 ${y}H44`, "stroke-dasharray": dashes };
      add(group, "path", undefined, line);
      if (marker) add(group, "path", undefined, { class: "mark", d: marker, ...move });
      add(root, "text", name, { x: 52, y: y + 4 });
    });
    add(root, "style", ALONE);
    return new XMLSerializer().serializeToString(root);
  }

  // A row a mark: the line's name, x and y; of seeds one each.
  csv() {
    const { xName, yName, lines } = this.spec, table = [["line", xName, yName]];
    for (const { name, x, y, each } of lines)
      x.forEach((at, i) => (each ? each[i] : [y[i]]).forEach((z) => table.push([name, at, z])));
    const cell = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
    return table.map((row) => row.map(cell).join(",") + "\r\n").join("");
  }

  leave() {
    this.at = undefined;
    this.tip.hidden = true;
    this.cursor?.setAttribute("visibility", "hidden");
  }

  toPointer(event) {
    const at = event.clientX - this.box.getBoundingClientRect().left;
    const distances = this.xs.map((x) => Math.abs(this.x(x) - at));
    this.read(distances.indexOf(Math.min(...distances)));
  }

  toKey(event) {
    const { at = -1 } = this, last = this.xs.length - 1;
    const left = Math.max(at - 1, 0), right = Math.min(at + 1, last);
    const to = { ArrowLeft: left, ArrowRight: right, Home: 0, End: last }[event.key];
    if (event.key === "Escape") this.leave();
    if (to === undefined) return;
    event.preventDefault();
    this.read(to);
  }

  // Show what the lines are at one x: below the chart, above it where the window ends.
  read(index) {
    if (index === this.at) return;
    this.at = index;
    const x = this.x(this.xs[index]), [caption, head, ...rows] = this.spec.tip(this.xs[index]);
    for (const end of ["x1", "x2"]) this.cursor.setAttribute(end, x);
    this.cursor.setAttribute("visibility", "visible");
    this.tip.replaceChildren();
    const table = add(this.tip, "table");
    add(table, "caption", caption);
    [head, ...rows].forEach((cells, i) => {
      const row = add(table, "tr");
      for (const cell of cells) add(row, i ? "td" : "th", cell);
    });
    this.tip.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = this.tip;
    const below = this.box.getBoundingClientRect().bottom + height < innerHeight;
    this.tip.style.left = `${Math.max(0, Math.min(x - width / 2, this.width - width))}px`;
    this.tip.style.top = below ? "100%" : `${-height}px`;
  }
}

const ACCURACY = { y: [-0.03, 1.03], yTicks: [0, 0.25, 0.5, 0.75, 1], solved: data.solved };
ACCURACY.yText = (value) => `${100 * value} %`;
ACCURACY.yName = "test accuracy";

function drawPanels() {
  const rates = data.panels.flatMap((panel) => panel.lines.flatMap((line) => line.x));
  const ends = [Math.min(...rates), Math.max(...rates)];
  for (const panel of data.panels) {
    const tip = (x) => {
      const found = panel.lines.map((line) => [line, line.x.indexOf(x)]).filter(([, i]) => i >= 0);
      found.sort(([a, i], [b, j]) => b.mean[j] - a.mean[i]);
      const cells = ([{ look, mean, each, solved }, i]) => {
        const seeds = each[i], numbers = [mean[i], seeds[0], seeds.at(-1)].map(percent);
        return [data.looks[look].mixer, ...numbers, `${solved[i]} of ${seeds.length}`];
      };
      const head = ["", "mean", "min", "max", "solve"];
      return [`learning rate ${rate(x)}`, head, ...found.map(cells)];
    };
    const lines = () => panel.lines.map(({ look, x, mean, each }) => {
      const className = `look${look}${alone.size && !alone.has(look) ? " dim" : ""}`;
      return { x, y: mean, each, className, name: data.looks[look].mixer, ...data.looks[look] };
    });
    const spec = { ...ACCURACY, log: true, x: ends, xName: "learning rate", tip };
    const chart = new Chart(byId("panels"), panel.title);
    redraw.push(() => chart.show({ ...spec, lines: lines() }));
  }
  redraw.forEach((draw) => draw());
}

// The mixers that are chosen in the legend; with none, all are drawn alike.
const alone = new Set(), redraw = [];
function chooseMixers() {
  [...byId("mixers").children].forEach((item, look) => {
    const button = document.createElement("button");
    button.append(...item.childNodes);
    button.setAttribute("aria-pressed", false);
    item.append(button);
    button.addEventListener("click", () => {
      if (!alone.delete(look)) alone.add(look);
      button.setAttribute("aria-pressed", alone.has(look));
      redraw.forEach((draw) => draw());
    });
  });
}

let charts; // of the chosen run
function choose(row) {
  const run = data.runs[row.dataset.run], { step, train, test, accuracy, falls } = run;
  for (const other of rows) {
    other.setAttribute("aria-selected", other === row);
    other.tabIndex = other === row ? 0 : -1;
  }
  byId("run").textContent = `The chosen run: ${run.title}`;
  byId("kind").textContent = run.kind;
  for (const id of ["notes", "own"]) byId(id).replaceChildren();
  for (const note of run.notes) add(byId("notes"), "li", note);
  data.settings.forEach((name, i) => {
    if (run.values[i] === null) return;
    add(byId("own"), "dt", name);
    add(byId("own"), "dd", run.values[i]);
  });
  const look = `look${run.look}`, highest = Math.max(...train, ...test) || 1;
  document.querySelector(".test").setAttribute("class", `test ${look}`);
  const tip = (x) => {
    const i = step.indexOf(x);
    const losses = [["test loss", nats(test[i])], ["training loss", nats(train[i])]];
    return [`step ${whole(x)}`, [], ...losses, ["test accuracy", percent(accuracy[i])]];
  };
  const shared = { x: [0, step[step.length - 1]], xName: "training step", falls, tip };
  const training = { name: "training", x: step, y: train, className: "train", dashes: "4 3" };
  const tested = { name: "test", x: step, className: look };
  const loss = { y: [0, 1.04 * highest], yTicks: linearTicks(highest, 5), yName: "loss, nats" };
  loss.yText = (value) => Number(value.toPrecision(6));
  loss.lines = [training, { ...tested, y: test }];
  charts ??= ["Loss, nats", "Test accuracy"].map((name) => new Chart(byId("curves"), name));
  charts[0].show({ ...shared, ...loss });
  charts[1].show({ ...shared, ...ACCURACY, lines: [{ ...tested, y: accuracy }] });
}

function sortBy(header) {
  const up = header.getAttribute("aria-sort") !== "ascending", sign = up ? 1 : -1;
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const text = (row) => row.cells[header.cellIndex].textContent;
  const inOrder = (a, b) => sign * text(a).localeCompare(text(b));
  const byNumber = (a, b) => {
    const [one, other] = [parseFloat(text(a)), parseFloat(text(b))];
    if (isNaN(one) || isNaN(other)) return isNaN(one) - isNaN(other); // what is not there is last
    return sign * (one - other);
  };
  rows.sort(header.classList.contains("number") ? byNumber : inOrder);
  body.append(...rows);
}

// Leave the rows that contain every word.
function filter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/);
  for (const row of rows) {
    const text = Array.from(row.cells, (cell) => cell.textContent).join(" ").toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
  const seen = rows.filter((row) => !row.hidden);
  byId("shown").textContent = `${seen.length} of ${rows.length} runs`;
  if (seen.length && !seen.some((row) => row.tabIndex === 0)) seen[0].tabIndex = 0;
}

function rowKey(event) {
  const row = event.target.closest("tr"), seen = rows.filter((other) => !other.hidden);
  const at = seen.indexOf(row), to = { ArrowUp: at - 1, ArrowDown: at + 1 }[event.key];
  if (event.key === "Enter" || event.key === " ") choose(row);
  else if (to !== undefined) seen[to]?.focus();
  else return;
  event.preventDefault();
}

const table = byId("table"), body = table.tBodies[0], rows = [...body.rows];
document.documentElement.classList.add("js");
table.setAttribute("role", "grid");
for (const header of table.tHead.rows[0].cells) {
  const button = document.createElement("button");
  button.append(...header.childNodes);
  header.append(button);
  button.addEventListener("click", () => sortBy(header));
}
body.addEventListener("click", (event) => {
  choose(event.target.closest("tr"));
  byId("chosen").scrollIntoView({ block: "nearest" });
});
body.addEventListener("keydown", rowKey);
byId("filter").addEventListener("input", filter);
const first = rows.find((row) => row.dataset.run === data.best);
choose(first);
filter();
byId("box").scrollTop = first.offsetTop - table.tHead.offsetHeight;
chooseMixers();
drawPanels();
