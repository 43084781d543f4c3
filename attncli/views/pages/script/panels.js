/* Beside the step: the arithmetic of a cell and of a query, the lines to its keys, and all heads. */

// ── the arithmetic ───────────────────────────────────────────────────────────────────────────────
function explanationOf(query) {
  return layer().explanations?.[originalIndex("batch", state.batch)]?.[originalIndex("head", state.head)]?.[
    originalIndex("query", query)
  ];
}

function lineTable(lines) {
  const rows = lines.map((line) =>
    make(
      "tr",
      {},
      make("td", { class: "quiet" }, bdi(line.label)),
      make("td", {}, line.equation + (line.rounded ? "\u00a0†" : "")),
      make("td", { class: "quiet" }, line.remark),
    ),
  );
  return make("div", { class: "scroll" }, make("table", { class: "lines" }, make("tbody", {}, ...rows)));
}

const ROUNDED = "† the printed terms are rounded; the result comes from all digits, so its last digit can differ.";
const roundedNote = (lines) => (lines.some((line) => line.rounded) ? [make("p", { class: "quiet" }, ROUNDED)] : []);

function drawCell() {
  const step = currentStep(),
    view = viewOf(step);
  if (!step.rows || !step.columns) return parts.cell.replaceChildren(make("p", {}, "There is no number here."));
  const part = slice(step),
    rowLabel = axisLabels(step, step.rowAxis)[state.row],
    i = state.row * step.columns + state.column;
  const names = [make("span", { class: "quiet" }, `${step.rowAxis} `), bdi(rowLabel)];
  if (step.columnAxis)
    names.push(
      make("span", { class: "quiet" }, `, ${step.columnAxis.replace("_", " ")} `),
      bdi(axisLabels(step, step.columnAxis)[state.column]),
    );
  if (view.block > 1) return drawBlock(step, view, part);
  const kind = cellKind(part, i),
    value = kind ? `${MARK_TEXTS[kind]} (${MARK_NAMES[kind]})` : exactCell(step, part.values[i]);
  const content = [make("h2", {}, ...names), make("p", {}, `${step.name} `, make("span", { class: "figure" }, value))];
  if (step.rowAxis === "query" && step.columnAxis === "key") content.push(...arithmeticOfCell());
  return parts.cell.replaceChildren(...content);
}

function exactCell(step, x) {
  return step.kind === "u1" || step.kind === "i4" ? numberText(x, step) : exactText(x, step.kind);
}

function drawBlock(step, view, part) {
  const top = state.row - ((state.row - view.top) % view.block),
    left = state.column - ((state.column - view.left) % view.block);
  const found = blockAt(part, top, left, view.block, view),
    rows = axisLabels(step, step.rowAxis),
    columns = axisLabels(step, step.columnAxis);
  const span = (labels, from, to) => [bdi(labels[from]), " … ", bdi(labels[to - 1])];
  const numbers = found.kind
    ? MARK_NAMES[found.kind]
    : `mean ${numberText(found.mean, step)}, maximum ${numberText(found.max, step)} at ${found.place.map((i, axis) => originalIndex(axis ? step.columnAxis : step.rowAxis, i)).join(", ")}`;
  parts.cell.replaceChildren(
    make(
      "h2",
      {},
      `${step.rowAxis} `,
      ...span(rows, top, found.bottom),
      `, ${step.columnAxis} `,
      ...span(columns, left, found.right),
    ),
    make("p", {}, `${step.name}: `, make("span", { class: "figure" }, numbers)),
    make("p", { class: "quiet" }, "A block of cells. Click it, or press Enter, to see its numbers."),
  );
}

/* How one query's number for one key comes about: the lines of `attn explain`, or its numbers in every step. */
function arithmeticOfCell() {
  const explanation = explanationOf(state.row),
    key = originalIndex("key", state.column);
  if (explanation && !isEdited()) {
    const content = [],
      shown = [];
    const first = explanation.sections.findIndex((section) => section.title === "scores"); // before it are q, k and v
    for (const section of explanation.sections.slice(first)) {
      if (!section.lines.some((line) => line.key === key)) continue;
      const lines = section.lines.filter((line) => line.key === key || line.key === null);
      shown.push(...lines);
      content.push(
        make("h3", {}, section.title, make("span", { class: "quiet" }, section.formula ? `  ${section.formula}` : "")),
        lineTable(lines),
      );
    }
    if (content.length) return [...content, ...roundedNote(shown)];
  }
  const rows = [];
  for (const step of layer().steps.filter((one) => one.rowAxis === "query" && one.columnAxis === "key")) {
    const part = slice(step),
      i = state.row * step.columns + state.column,
      kind = cellKind(part, i);
    const text = kind ? MARK_TEXTS[kind] : exactCell(step, part.values[i]);
    rows.push(
      make(
        "tr",
        {},
        make("td", { class: "quiet" }, step.name),
        make("td", {}, text),
        make("td", { class: "quiet" }, step.formula),
      ),
    );
  }
  const note =
    isEdited() && explanation
      ? "The lines of arithmetic are those of the numbers as they came in: undo the changes to see them."
      : `A page holds the arithmetic of small problems only. For this cell: ${explainCommand()}`;
  return [
    make("div", { class: "scroll" }, make("table", { class: "lines" }, make("tbody", {}, ...rows))),
    make("p", { class: "quiet" }, note),
  ];
}

function explainCommand() {
  const source = /^[\w./-]+$/.test(layer().source) ? layer().source : "INPUT";
  const at = [
    ["batch", batchCount()],
    ["head", headCount()],
  ]
    .filter(([, count]) => count > 1)
    .map(([axis]) => ` --at ${axis}=${originalIndex(axis, state[axis])}`);
  return `attn explain ${source} ${originalIndex("query", state.row)}${at.join("")} --at key=${originalIndex("key", state.column)}, with the options of this result`;
}

/* The step that is shown, for the query that was chosen: what it does, why, and every line of it. */
function drawWorking() {
  const step = currentStep(),
    explanation = explanationOf(state.query);
  const titles = { k: "k and v", v: "k and v", head_context: "head_context" };
  const section = explanation?.sections.findLast((one) => one.title === (titles[step.name] ?? step.name));
  const queries = queryLabels();
  const content = [
    make("h2", {}, `Step ${state.step + 1} of ${layer().steps.length}: ${step.name}`),
    make("p", {}, section?.formula || step.formula),
  ];
  const why = section?.why || layer().reasons[step.name];
  if (why) content.push(make("p", {}, why));
  if (section) {
    if (isEdited())
      content.push(
        make(
          "p",
          { class: "quiet" },
          "Its lines are those of the numbers as they came in: undo the changes to see them.",
        ),
      );
    else
      content.push(
        make("h3", {}, "for query ", bdi(queries[state.query] ?? "")),
        lineTable(section.lines),
        ...roundedNote(section.lines),
      );
    if (section.remark && !isEdited()) content.push(make("p", { class: "quiet" }, section.remark));
  }
  content.push(
    make(
      "div",
      {},
      button("◀ Back", () => moveStep(-1), { disabled: state.step === 0 }),
      " ",
      button("Next ▶", () => moveStep(1), { disabled: state.step === layer().steps.length - 1 }),
    ),
  );
  parts.working.replaceChildren(...content);
}

// ── where a query looks ──────────────────────────────────────────────────────────────────────────
function weightsStep() {
  return ["mixed_weights", "dropout_weights", "weights"].map((name) => findStep(name)).find(Boolean);
}

/* What the lines leave out, where the page lacks the weights that the values are summed with. */
function laterWeightsNote(step) {
  const variant = layer().record.variant ?? {};
  const isUsed = (name) => variant[name] && variant[name] !== "none";
  const missing = [
    ["dropout", "dropout_weights"],
    ["head_mixing", "mixed_weights"],
  ].filter(([part, name]) => isUsed(part) && step.name !== "mixed_weights" && !findStep(name));
  if (!missing.length) return "";
  const names = missing.map(([, name]) => name).join(" and ");
  return make("p", { class: "warning" }, `The values are not summed with these: this page holds no ${names}.`);
}

function queryLabels() {
  const step = layer().steps.find((one) => one.rowAxis === "query");
  return step ? axisLabels(step, "query") : [];
}

function drawLooking() {
  const step = weightsStep();
  parts.looking.hidden = !step || !step.rows || !step.columns;
  if (parts.looking.hidden) return;
  state.query = Math.min(state.query, step.rows - 1);
  const part = slice(step),
    row = [...part.values.subarray(state.query * step.columns, (state.query + 1) * step.columns)];
  const queries = axisLabels(step, "query"),
    keys = axisLabels(step, "key");
  const kinds = row.map((_, j) => cellKind(part, state.query * step.columns + j));
  const largest = Math.max(...row.map((x, j) => (kinds[j] ? 0 : Math.abs(x))), 0);
  let shown = row.map((_, j) => j);
  if (shown.length > MAX_LISTED) {
    shown = shown
      .filter((j) => !kinds[j] && Math.abs(row[j]) >= MIN_SHARE * largest && row[j] !== 0)
      .sort((a, b) => Math.abs(row[b]) - Math.abs(row[a]))
      .slice(0, MAX_LISTED)
      .sort((a, b) => a - b);
  }
  const first = Math.max(0, Math.min(state.query - MAX_LISTED / 2, queries.length - MAX_LISTED));
  const listed = queries.map((_, i) => i).slice(first, first + MAX_LISTED),
    height = 24;
  const choose = (i) => {
    state.query = i;
    state.row = currentStep().rowAxis === "query" ? i : state.row;
    draw();
    parts.looking.querySelector("[aria-selected=true]")?.focus();
  };
  const moveInList = (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    choose(Math.min(Math.max(state.query + by, 0), queries.length - 1));
  };
  const left = make(
    "ol",
    { role: "listbox", "aria-label": "queries" },
    ...listed.map((i) =>
      make(
        "li",
        {
          role: "option",
          tabindex: i === state.query ? 0 : -1,
          "aria-selected": String(i === state.query),
          onclick: () => choose(i),
          onkeydown: moveInList,
        },
        bdi(queries[i]),
      ),
    ),
  );
  const right = make(
    "ol",
    { "aria-label": "keys" },
    ...shown.map((j) =>
      make(
        "li",
        { class: kinds[j] ? "quiet" : null },
        `${kinds[j] ? MARK_TEXTS[kinds[j]] : numberText(row[j], step)} `,
        bdi(keys[j]),
      ),
    ),
  );
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const tall = height * Math.max(listed.length, shown.length, 1);
  const above = Math.max(0, Math.min(state.query - first - (shown.length >> 1), listed.length - shown.length)); // beside the query
  right.style.paddingTop = `${above * height}px`;
  svg.setAttribute("height", tall);
  svg.setAttribute("viewBox", `0 0 100 ${tall}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  shown.forEach((j, place) => {
    if (kinds[j] || !row[j]) return;
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line"),
      share = Math.min(Math.abs(row[j]) / Math.max(largest, 1e-300), 1);
    const at = {
      x1: 0,
      y1: (state.query - first + 0.5) * height,
      x2: 100,
      y2: (above + place + 0.5) * height,
      "stroke-width": 1 + 7 * Math.min(Math.abs(row[j]), 1),
      "stroke-opacity": 0.25 + 0.75 * share,
      "vector-effect": "non-scaling-stroke",
    };
    for (const [name, value] of Object.entries(at)) line.setAttribute(name, value);
    svg.append(line);
  });
  const explanation = explanationOf(state.query),
    leftOut = row.filter((x, j) => !kinds[j] && x !== 0).length - shown.filter((j) => !kinds[j] && row[j] !== 0).length;
  parts.looking.replaceChildren(
    make("h2", {}, "Where ", bdi(queries[state.query]), " looks"),
    make("p", { class: "quiet" }, `lines: ${step.name}; choose a query at the left, or click a cell`),
    laterWeightsNote(step),
    make("div", { class: "looks" }, left, svg, right),
    leftOut ? make("p", { class: "quiet" }, `${leftOut} keys have smaller weights and are not listed.`) : "",
    explanation?.closing && !isEdited() ? make("p", {}, ...withTokens(explanation.closing)) : "",
    contextOf(queries),
  );
}

/* The vector that the query takes: of this head, where the page has it. */
function contextOf(queries) {
  const step = findStep("normed_context") ?? findStep("head_context") ?? findStep("context") ?? findStep("output");
  if (!step) return make("p", { class: "quiet" }, "This page holds no context.");
  const part = slice(step),
    row = [...part.values.subarray(state.query * step.columns, (state.query + 1) * step.columns)];
  const shown = row
    .slice(0, 16)
    .map((x) => numberText(x, step))
    .join("  ");
  const ofHeads = headCount() > 1 && !step.sliceAxes.includes("head") ? ` (all ${headCount()} heads)` : "";
  return make(
    "p",
    {},
    `${step.name} of `,
    bdi(queries[state.query]),
    `${ofHeads} = `,
    make("code", {}, `[${shown}${row.length > 16 ? "  …" : ""}]`),
  );
}

// ── all heads ────────────────────────────────────────────────────────────────────────────────────
function drawHeads() {
  const name = currentStep().name,
    groups = [];
  for (const [l, one] of page.layers.entries()) {
    const step = one.steps.find((other) => other.name === name),
      count = headCount(one);
    if (!step?.columnAxis || !step.rows || !step.columns || (count < 2 && page.layers.length < 2)) continue;
    const hasHeads = step.sliceAxes.some((axis) => axis.endsWith("head"));
    const buttons = Array.from({ length: hasHeads ? count : 1 }, (_, head) => {
      const ratio = Math.max(devicePixelRatio, 1),
        canvas = make("canvas", { width: 80 * ratio, height: 80 * ratio, "aria-hidden": "true" });
      canvas.style.width = "80px";
      const whole = {
        top: 0,
        left: 0,
        rows: step.rows,
        columns: step.columns,
        block: Math.max(1, Math.ceil(Math.max(step.rows, step.columns) / 160)),
      };
      paint(
        canvas.getContext("2d"),
        step,
        gridOf(step, whole, slice(step, Math.min(state.batch, batchCount(one) - 1), head)),
        0,
        0,
        80 * ratio,
        80 * ratio,
      );
      const isChosen = l === state.layer && (head === state.head || !hasHeads);
      const label = hasHeads ? `head ${one.at.head?.[head] ?? head}` : name;
      const move = (event) => {
        const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!by || !hasHeads) return;
        event.preventDefault();
        update({ layer: l, head: (head + by + count) % count });
        parts.multiples.querySelector("[aria-checked=true]")?.focus();
      };
      return make(
        "button",
        {
          type: "button",
          role: "radio",
          "aria-checked": String(isChosen),
          tabindex: isChosen || (l !== state.layer && head === 0) ? 0 : -1,
          onclick: () => chooseHead(l, hasHeads ? head : state.head),
          onkeydown: move,
        },
        canvas,
        label,
      );
    });
    const title = page.layers.length > 1 ? make("h3", {}, bdi(one.name || `layer ${l}`)) : null;
    groups.push(
      make(
        "div",
        {},
        title,
        make(
          "div",
          { class: "heads", role: "radiogroup", "aria-label": `heads of ${one.name || "this result"}` },
          ...buttons,
        ),
      ),
    );
  }
  parts.multiples.hidden = !groups.length;
  parts.multiples.replaceChildren(make("h2", {}, `${name} of every head`), ...groups);
}

function chooseHead(l, head) {
  const name = currentStep().name;
  update({
    layer: l,
    head,
    step: Math.max(
      0,
      page.layers[l].steps.findIndex((step) => step.name === name),
    ),
  });
  parts.multiples.querySelector("[aria-checked=true]")?.focus();
}
