/* Numbers that are changed, what is saved, and how the page starts. */

// ── change a number ──────────────────────────────────────────────────────────────────────────────
function drawEditing() {
  const { inputs } = layer();
  parts.editing.replaceChildren(make("h2", {}, "Change a number"));
  if (!inputs) {
    parts.editing.append(
      make(
        "p",
        { class: "quiet" },
        `Not in this page: ${layer().why_no_inputs}. Change the input, and run attn compute again.`,
      ),
    );
    return;
  }
  parts.editing.append(
    make("p", { class: "quiet" }, "Weights and context follow, computed in this page by the formulas of each step."),
  );
  for (const name of Object.keys(inputs.arrays)) parts.editing.append(inputTable(name));
  const unfollowed = layer()
    .steps.map((step) => step.name)
    .filter((name) => !inputs.steps.includes(name) && !/^[wb]_|^mask$|^visible_keys$/.test(name));
  if (unfollowed.length)
    parts.editing.append(
      make(
        "p",
        { class: "quiet" },
        `Not computed in this page, so that they stay as they were: ${unfollowed.join(", ")}. attn compute --only ${unfollowed.join(",")} computes them.`,
      ),
    );
  parts.editing.append(button("undo all changes", undo, { "data-name": "undo" }));
}

function inputTable(name) {
  const { inputs } = layer(),
    array = inputs.arrays[name],
    items = array[Math.min(originalIndex("batch", state.batch), array.length - 1)];
  const head =
    items.length > 1
      ? items.length === inputs.heads
        ? originalIndex("head", state.head)
        : inputs.kv_of_head[originalIndex("head", state.head)]
      : 0;
  const rows = items[head],
    labels = name === "x" || name === "q" ? queryLabels() : keyLabels();
  const change = (i, d) => (event) => {
    const text = event.target.value.trim().replace("−", "-"),
      value = Number(text),
      isNumber = text !== "" && Number.isFinite(value);
    event.target.setAttribute("aria-invalid", String(!isNumber));
    if (!isNumber) return;
    rows[i][d] = value;
    recompute();
  };
  const labelOf = (i) => (layer().at.query || layer().at.key ? String(i) : (labels[i] ?? String(i)));
  const body = rows.map((row, i) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, bdi(labelOf(i))),
      ...row.map((x, d) =>
        make(
          "td",
          {},
          make("input", {
            type: "text",
            inputmode: "decimal",
            autocomplete: "off",
            value: String(x),
            "aria-label": `${name} of ${labelOf(i)}, dim ${d}`,
            "data-input": `${name} ${i} ${d}`,
            oninput: change(i, d),
          }),
        ),
      ),
    ),
  );
  const top = make("tr", {}, make("th", {}, name), ...rows[0].map((_, d) => make("th", { scope: "col" }, String(d))));
  return make(
    "div",
    { class: "scroll" },
    make("table", { class: "inputs" }, make("thead", {}, top), make("tbody", {}, ...body)),
  );
}

function keyLabels() {
  const step = layer().steps.find((one) => one.columnAxis === "key");
  return step ? axisLabels(step, "key") : [];
}

/* Compute one batch item anew: the plain chain, from its inputs to its output. */
function computeChain(inputs, batch) {
  const { arrays, matrices, heads, kv_heads: kvHeads, links } = inputs;
  const item = (name) => arrays[name]?.[Math.min(batch, arrays[name].length - 1)];
  const times = (rows, { w, b }) =>
    rows.map((row) => w[0].map((_, c) => row.reduce((sum, x, d) => sum + x * w[d][c], 0) + (b ? b[c] : 0)));
  const split = (rows, count) =>
    Array.from({ length: count }, (_, h) =>
      rows.map((row) => row.slice((h * row.length) / count, ((h + 1) * row.length) / count)),
    );
  const project = (letter, count) => {
    if (!arrays.x) return item(letter);
    const rows = item("x")[0];
    return split(matrices[letter] ? times(rows, matrices[letter]) : rows, count);
  };
  const results = { q: project("q", heads), k: project("k", kvHeads), v: project("v", kvHeads) };
  const keysOf = (h) => results.k[inputs.kv_of_head[h]];
  let scores = results.q.map((rows, h) =>
    rows.map((q) => keysOf(h).map((k) => q.reduce((sum, x, d) => sum + x * k[d], 0))),
  );
  results.scores = scores;
  const visible = inputs.visible[batch];
  for (const link of links) {
    scores = scores.map((rows, h) =>
      rows.map((row, i) =>
        row.map((s, j) => (link.scale === null ? (visible[h][i][j] ? s : -Infinity) : s * link.scale)),
      ),
    );
    results[link.step] = scores;
  }
  const empty = { zero: 0, nan: NaN, uniform: 1 / (scores[0][0]?.length ?? 1) }[inputs.empty_rows];
  results.weights = scores.map((rows, h) =>
    rows.map((row, i) => {
      if (!visible[h][i].some(Boolean)) return row.map(() => empty);
      const max = Math.max(...row.filter((_, j) => visible[h][i][j]));
      const powers = row.map((s, j) => (visible[h][i][j] ? Math.exp(s - max) : 0)),
        total = powers.reduce((sum, x) => sum + x, 0);
      return powers.map((x) => x / total);
    }),
  );
  if (!results.v) return results;
  results.head_context = results.weights.map((rows, h) =>
    rows.map((row) => {
      const values = results.v[inputs.kv_of_head[h]];
      return values[0].map((_, c) =>
        row.reduce((sum, weight, j) => (weight === 0 ? sum : sum + weight * values[j][c]), 0),
      );
    }),
  );
  results.context = results.head_context[0].map((_, i) => results.head_context.flatMap((rows) => rows[i]));
  results.output = matrices.o ? times(results.context, matrices.o) : undefined;
  return results;
}

function recompute() {
  const one = layer(),
    count = batchCount(one);
  for (let batch = 0; batch < count; batch++) {
    const results = computeChain(one.inputs, one.at.batch?.[batch] ?? batch);
    for (const step of one.steps) if (results[step.name]) store(step, results[step.name], batch);
  }
  one.isEdited = true;
  draw({ keepInputs: true });
}

/* Put the numbers of one batch item where a step holds them. */
function store(step, result, batch) {
  step.original ??= step.values.slice();
  step.extent = undefined;
  const axes = step.axes,
    { at } = step.layer,
    index = new Array(axes.length).fill(0);
  for (let flat = 0; flat < step.values.length; flat++) {
    let rest = flat;
    for (let i = axes.length - 1; i >= 0; i--) {
      index[i] = rest % step.shape[i];
      rest = Math.floor(rest / step.shape[i]);
    }
    if (axes[0] === "batch" && index[0] !== batch) continue;
    const inner = axes.map((axis, i) => at[axis]?.[index[i]] ?? index[i]).slice(axes[0] === "batch" ? 1 : 0);
    if (inner.length < 3 && Array.isArray(result[0]?.[0])) inner.unshift(0); // a single head has no axis
    step.values[flat] = inner.reduce((nested, i) => nested[i], result);
  }
}

function undo() {
  const one = layer();
  one.inputs.arrays = structuredClone(one.originalInputs);
  one.isEdited = false;
  for (const step of one.steps) {
    if (step.original) step.values = step.original.slice();
    step.extent = undefined;
  }
  draw();
}

// ── save ─────────────────────────────────────────────────────────────────────────────────────────
function saveBlob(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function savePicture() {
  const step = currentStep(),
    view = viewOf(step);
  const where = headCount() > 1 ? ` · head ${originalIndex("head", state.head)}` : "";
  const { canvas } = mapCanvas(step, view, 900, {
    withNumbers: isTable(step),
    title: `${step.name}${where} · ${step.formula}`,
  });
  canvas.toBlob((blob) => saveBlob(blob, `${step.name}.png`));
}

function saveNumbers() {
  const one = layer(),
    spelled = (x) => (Number.isNaN(x) ? "NaN" : x === Infinity ? "Infinity" : x === -Infinity ? "-Infinity" : x);
  const record = { ...one.record, axes: {}, shapes: {}, formulas: {} };
  for (const step of one.steps) {
    const numbers = Array.from(step.values, (x) =>
      step.kind === "u1"
        ? Boolean(x)
        : step.kind === "f4"
          ? spelled(Number(Number.isFinite(x) ? exactText(x, "f4") : x))
          : spelled(x),
    );
    const nest = (from, depth) => {
      if (depth === step.shape.length) return numbers[from];
      const size = step.shape.slice(depth + 1).reduce((product, length) => product * length, 1);
      return Array.from({ length: step.shape[depth] }, (_, i) => nest(from + i * size, depth + 1));
    };
    [record.axes[step.name], record.shapes[step.name], record.formulas[step.name]] = [
      step.axes,
      step.shape,
      step.formula,
    ];
    record[step.name] = nest(0, 0);
  }
  if (one.isEdited) record.warnings = [...record.warnings, "changed: numbers of the input were changed in a page"];
  saveBlob(new Blob([JSON.stringify(record)], { type: "application/json" }), "result.json");
}

// ── all of it ────────────────────────────────────────────────────────────────────────────────────
function draw({ keepInputs = false } = {}) {
  state.step = Math.min(state.step, layer().steps.length - 1);
  state.batch = Math.min(state.batch, batchCount() - 1);
  state.head = Math.min(state.head, headCount() - 1);
  drawBar();
  drawStep();
  drawCell();
  drawWorking();
  drawLooking();
  drawHeads();
  if (!keepInputs) drawEditing();
}

function update(changes) {
  Object.assign(state, changes);
  draw();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  if (event.key === "n") moveStep(1);
  else if (event.key === "b") moveStep(-1);
  else if (event.key === "h" || event.key === "H")
    update({ head: (state.head + (event.key === "h" ? 1 : headCount() - 1)) % headCount() });
  else return;
  say();
}

function build() {
  const panel = (name, more = "panel") => (parts[name] = make("section", { class: `${more} ${name}` }));
  parts.bar = make("nav", { class: "bar", "aria-label": "what is shown" });
  parts.said = make("p", { class: "apart", "aria-live": "polite" });
  const first = page.layers[0],
    head = make(
      "header",
      {},
      make("h1", {}, bdi(page.title)),
      make("p", { class: "quiet" }, first.summary.join(" · ")),
    );
  for (const warning of page.layers.flatMap((one) => one.warnings))
    head.append(make("p", { class: "warning" }, warning));
  if (first.steps.some((step) => step.kind === "f4"))
    head.append(make("p", { class: "quiet" }, "Numbers are exact to float32: seven digits."));
  const left = make("div", {}, (parts.map = make("section", { class: "step" })), panel("multiples"), panel("working"));
  const right = make("div", {}, panel("cell"), panel("looking"), panel("editing"));
  parts.cell.setAttribute("aria-label", "the cell");
  document.getElementById("page").replaceChildren(head, parts.bar, make("main", {}, left, right), parts.said);
}

async function start() {
  if (typeof DecompressionStream === "undefined") {
    document.getElementById("page").textContent =
      "This browser is too old to unpack the numbers: Chrome 80, Firefox 113 or Safari 16.4 can.";
    return;
  }
  await unpackAll();
  for (const one of page.layers) if (one.inputs) one.originalInputs = structuredClone(one.inputs.arrays);
  build();
  const weights = weightsStep();
  if (weights) {
    Object.assign(state, { step: layer().steps.indexOf(weights), row: weights.rows - 1, query: weights.rows - 1 });
    const row = [...slice(weights).values.subarray(-weights.columns)];
    state.column = Math.max(row.indexOf(Math.max(...row)), 0);
  }
  draw();
  addEventListener("keydown", onKey);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw({ keepInputs: true }));
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) draw({ keepInputs: true });
    width = innerWidth;
  });
  document.documentElement.dataset.ready = "yes";
}

start();
