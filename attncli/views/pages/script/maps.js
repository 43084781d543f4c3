/* The step that is shown: a table of numbers, or a map of colours. */

// ── the step as a table or a map ─────────────────────────────────────────────────────────────────
/* The part of a step that is shown: all rows and columns, or those zoomed in on; and how many of them make a block. */
function viewOf(step, maxCells = MAX_MAP) {
  const whole = { top: 0, left: 0, rows: step.rows, columns: step.columns };
  const shown = state.window && step.columnAxis ? { ...whole, ...state.window } : whole;
  shown.rows = Math.min(shown.rows, step.rows - shown.top);
  shown.columns = Math.min(shown.columns, step.columns - shown.left);
  return { ...shown, block: Math.max(1, Math.ceil(Math.max(shown.rows, shown.columns) / maxCells)) };
}

/* The cells of a view: those of the step, or blocks, each the mean or the maximum of its numbers that are not hidden. */
function gridOf(step, view, part = slice(step)) {
  const { block, top, left } = view;
  if (block === 1 && view.rows === step.rows && view.columns === step.columns) return part;
  const rows = Math.ceil(view.rows / block),
    columns = Math.ceil(view.columns / block);
  const grid = { rows, columns, values: new Float64Array(rows * columns), marks: new Uint8Array(rows * columns) };
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const found = blockAt(part, top + r * block, left + c * block, block, view);
      grid.values[r * columns + c] = block > 1 ? found[state.block] : found.mean;
      grid.marks[r * columns + c] = found.kind;
    }
  }
  return grid;
}

function blockAt(part, top, left, block, view) {
  const bottom = Math.min(top + block, view.top + view.rows),
    right = Math.min(left + block, view.left + view.columns);
  if (block === 1) {
    const i = top * part.columns + left;
    return { kind: cellKind(part, i), mean: part.values[i] };
  }
  let count = 0,
    sum = 0,
    max = -Infinity,
    kind = PLAIN,
    place = [top, left];
  for (let r = top; r < bottom; r++) {
    for (let c = left; c < right; c++) {
      const i = r * part.columns + c,
        own = cellKind(part, i);
      if (own !== PLAIN) {
        kind = Math.max(kind, own);
        continue;
      }
      count += 1;
      sum += part.values[i];
      if (part.values[i] > max) [max, place] = [part.values[i], [r, c]];
    }
  }
  return { kind: count && kind < NAN ? PLAIN : kind, mean: sum / count, max, place, bottom, right };
}

const isTable = (step) => step.rows <= MAX_TABLE && step.columns <= MAX_TABLE;

function drawStep() {
  const step = currentStep(),
    view = viewOf(step);
  state.row = Math.min(state.row, step.rows - 1);
  state.column = Math.min(state.column, step.columns - 1);
  const where = [];
  if (batchCount() > 1 && step.sliceAxes.includes("batch")) where.push(`batch ${originalIndex("batch", state.batch)}`);
  if (headCount() > 1 && step.sliceAxes.some((axis) => axis.endsWith("head")))
    where.push(`head ${originalIndex("head", state.head)} of ${headCount()}`);
  const axes = step.columnAxis ? `rows = ${step.rowAxis}, columns = ${step.columnAxis}` : `rows = ${step.rowAxis}`;
  const hasBroadTable = layer().steps.some((one) => isTable(one) && one.columns > MAX_SPACIOUS);
  parts.map.closest("main")?.classList.toggle("broad", hasBroadTable);
  const hadFocus = parts.map.contains(document.activeElement) && document.activeElement.classList.contains("map");
  const body = make("div", { class: "scroll" });
  parts.map.replaceChildren(
    make(
      "h2",
      {},
      [step.name, ...where].join(" · "),
      isEdited() ? make("span", { class: "quiet" }, " · computed in this page") : null,
    ),
    make("p", {}, step.formula),
    make("p", { class: "quiet" }, [axes, step.remark].filter(Boolean).join("; ")),
    drawLegend(step, view),
    body,
  );
  if (!step.rows || !step.columns) body.append(make("p", {}, "There is no number here."));
  else if (isTable(step)) drawTable(step, body);
  else drawMap(step, view, body);
  if (hadFocus) body.querySelector(".map")?.focus();
}

function drawLegend(step, view) {
  const legend = make("div", { class: "legend" });
  if (step.kind[0] !== "u" && step.name !== "top_keys") {
    const top = isShare(step) ? 1 : extent(step).size,
      isByRow = scaleOf(step) === "row";
    const colors = colorsOf(step);
    const ramp = make("span", { class: "ramp" });
    ramp.style.background = `linear-gradient(90deg, ${[0, 32, 64, 96, 128, 160, 192, 224, 255].map((i) => cssColor(colors[i])).join(", ")})`;
    const end = isByRow ? "each row’s largest" : numberText(top, step);
    legend.append(
      make(
        "span",
        {},
        isSigned(step) ? (isByRow ? "minus it" : `-${end}`) : "0",
        ramp,
        scaleOf(step) === "root" ? `${end} (√)` : end,
      ),
    );
  }
  const part = slice(step),
    kinds = new Set();
  for (let i = 0; i < part.values.length && kinds.size < 6; i++) kinds.add(cellKind(part, i));
  for (const kind of [...kinds].filter(Boolean).sort()) {
    const swatch = make("canvas", { class: "swatch", width: 16, height: 16 });
    const pen = swatch.getContext("2d");
    pen.fillStyle = markPattern(pen, kind);
    pen.fillRect(0, 0, 16, 16);
    legend.append(
      isTable(step)
        ? make("span", {}, `${MARK_TEXTS[kind]} = ${MARK_NAMES[kind]}`)
        : make("span", {}, swatch, MARK_NAMES[kind]),
    );
  }
  if (view.block > 1) {
    const means = state.block === "mean" ? "mean" : "maximum";
    legend.append(
      make(
        "span",
        {},
        `Each cell is the ${means} of ${view.block} × ${view.block} numbers; zoom in for the numbers themselves.`,
      ),
      button(state.block === "mean" ? "show maxima" : "show means", () =>
        update({ block: state.block === "mean" ? "max" : "mean" }),
      ),
    );
  }
  if (step.columnAxis && Math.max(step.rows, step.columns) > ZOOM) {
    legend.append(
      button("zoom in", zoomIn, { disabled: Boolean(state.window) }),
      button("whole", () => update({ window: null }), { disabled: !state.window }),
    );
  }
  return legend;
}

function zoomIn() {
  const step = currentStep(),
    around = (at, count) => Math.max(0, Math.min(at - ZOOM / 2, count - ZOOM));
  update({
    window: { top: around(state.row, step.rows), left: around(state.column, step.columns), rows: ZOOM, columns: ZOOM },
  });
}

const MAP_KEYS =
  "arrow keys move, Enter shows where a query looks, n and b go to the next step and back, h to the next head";

function drawTable(step, body) {
  const part = slice(step),
    rowLabels = axisLabels(step, step.rowAxis),
    columnLabels = axisLabels(step, step.columnAxis);
  const head = make("tr", {}, make("td"), ...columnLabels.map((label) => make("th", { scope: "col" }, bdi(label))));
  const rows = rowLabels.map((label, r) => {
    const level = levelOfRow(step, part, r);
    const cells = columnLabels.map((_, c) => {
      const x = part.values[r * part.columns + c],
        kind = cellKind(part, r * part.columns + c);
      const cell = make(
        "td",
        { "data-row": r, "data-column": c, class: kind ? `mark mark-${kind}` : null },
        kind ? MARK_TEXTS[kind] : numberText(x, step),
      );
      if (!kind && step.kind[0] === "f") {
        const color = colorsOf(step)[level(x)];
        cell.style.background = cssColor(color);
        cell.style.color = inkOn(color);
      }
      if (kind) cell.title = MARK_NAMES[kind];
      return cell;
    });
    return make(
      "tr",
      { class: step.rowAxis === "query" && r === state.query ? "pinned" : null },
      make("th", { scope: "row" }, bdi(label)),
      ...cells,
    );
  });
  const isBroad = step.columns > MAX_SPACIOUS;
  const table = make("table", { class: isBroad ? "numbers broad" : "numbers" }, make("thead", {}, head), make("tbody", {}, ...rows));
  const at = (event) => event.target.closest("td[data-row]")?.dataset;
  const group = make(
    "div",
    {
      class: "map",
      tabindex: 0,
      role: "group",
      "aria-label": `${step.name}, a table: ${MAP_KEYS}`,
      onkeydown: moveByKey,
    },
    table,
  );
  group.addEventListener(
    "pointermove",
    (event) => at(event) && moveTo(Number(at(event).row), Number(at(event).column)),
  );
  group.addEventListener("click", (event) => at(event) && pin(Number(at(event).row), Number(at(event).column)));
  body.append(group);
  markCursor();
}

/* A pattern for cells that are no number: they differ in form, not in colour. */
function markPattern(pen, kind) {
  const tile = make("canvas", { width: 8, height: 8 }),
    ink = tile.getContext("2d");
  ink.strokeStyle = ink.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--hatch");
  const lines =
    {
      [HIDDEN]: [[0, 8, 8, 0]],
      [NAN]: [
        [0, 0, 8, 8],
        [0, 8, 8, 0],
      ],
      [MINUS_INFINITY]: [[0, 4, 8, 4]],
      [INFINITE]: [[4, 0, 4, 8]],
    }[kind] ?? [];
  for (const [x, y, toX, toY] of lines) {
    ink.beginPath();
    ink.moveTo(x, y);
    ink.lineTo(toX, toY);
    ink.stroke();
  }
  if (kind === DROPPED) ink.fillRect(2, 2, 3, 3);
  return pen.createPattern(tile, "repeat");
}

/* Colour the cells of a grid: one pixel each, enlarged; then those that are no number, by a pattern. */
function paint(pen, step, grid, x, y, width, height) {
  const small = make("canvas", { width: grid.columns, height: grid.rows }),
    ink = small.getContext("2d");
  const image = ink.createImageData(grid.columns, grid.rows),
    pixels = new Uint32Array(image.data.buffer),
    kinds = new Set();
  const packed = colorsOf(step).map(([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0); // little-endian, as browsers are
  for (let r = 0; r < grid.rows; r++) {
    const level = levelOfRow(step, grid, r);
    for (let c = 0; c < grid.columns; c++) {
      const i = r * grid.columns + c,
        kind = cellKind(grid, i);
      if (kind) kinds.add(kind);
      else pixels[i] = packed[level(grid.values[i])];
    }
  }
  ink.putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = width < grid.columns; // a thumbnail has fewer pixels than cells
  pen.drawImage(small, x, y, width, height);
  for (const kind of kinds) {
    const mask = ink.createImageData(grid.columns, grid.rows);
    for (let i = 0; i < grid.values.length; i++) mask.data[4 * i + 3] = cellKind(grid, i) === kind ? 255 : 0;
    ink.putImageData(mask, 0, 0);
    const sheet = make("canvas", { width: Math.ceil(width), height: Math.ceil(height) }),
      brush = sheet.getContext("2d");
    brush.imageSmoothingEnabled = false;
    brush.drawImage(small, 0, 0, width, height);
    brush.globalCompositeOperation = "source-in";
    brush.fillStyle = markPattern(brush, kind);
    brush.fillRect(0, 0, width, height);
    pen.drawImage(sheet, x, y, width, height);
  }
}

/* Where everything of a map lies, in CSS pixels. */
function layoutMap(step, view, available) {
  const rows = Math.ceil(view.rows / view.block),
    columns = Math.ceil(view.columns / view.block);
  const pen = make("canvas").getContext("2d");
  pen.font = "12px system-ui, sans-serif";
  const widest = (labels) =>
    labels.reduce((width, label) => Math.max(width, Math.min(pen.measureText(label).width, 110)), 20);
  const rowLabels = axisLabels(step, step.rowAxis).slice(view.top, view.top + view.rows);
  const columnLabels = axisLabels(step, step.columnAxis).slice(view.left, view.left + view.columns);
  const left = widest(rowLabels) + 10,
    above = widest(columnLabels) * 0.87 + 16,
    slant = above * 0.5;
  const cell = Math.max(
    Math.min(26, (available - left - Math.min(slant, 40)) / columns, Math.max(640 / rows, 1.25)),
    0.2,
  );
  return {
    rows,
    columns,
    rowLabels,
    columnLabels,
    left,
    top: above,
    cell,
    width: cell * columns,
    height: cell * rows,
    slant,
  };
}

const SLANTED_LABEL = 20; // pixels from one slanted label to the next: a line of text, seen at 60 degrees

/* A map with its labels: for the page, and for a picture. */
function mapCanvas(step, view, available, { withNumbers = false, title = "" } = {}) {
  const layout = layoutMap(step, view, available),
    ratio = Math.max(devicePixelRatio, withNumbers ? 2 : 1);
  if (withNumbers) Object.assign(layout, { cell: 60, width: 60 * layout.columns, height: 60 * layout.rows });
  const headroom = title ? 28 : 0;
  const width = Math.max(layout.left + layout.width + layout.slant, title.length * 8),
    height = layout.top + layout.height + headroom + 6;
  const canvas = make("canvas", { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  canvas.style.width = `${width}px`;
  const pen = canvas.getContext("2d"),
    style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name);
  pen.scale(ratio, ratio);
  pen.font = "12px system-ui, sans-serif";
  if (title) {
    pen.fillStyle = color("--ground");
    pen.fillRect(0, 0, width, height);
    pen.fillStyle = color("--ink");
    pen.fillText(title, 6, 18);
    pen.translate(0, headroom);
  }
  const grid = gridOf(step, view);
  paint(pen, step, grid, layout.left, layout.top, layout.width, layout.height);
  pen.fillStyle = color("--ink");
  pen.textBaseline = "middle";
  const every = Math.max(1, Math.ceil(14 / layout.cell)),
    clip = (text) => (text.length > 16 ? `${text.slice(0, 15)}…` : text);
  const isolate = (text) => `\u2068${clip(text)}\u2069`; // a right-to-left token does not reorder its index
  pen.textAlign = "right";
  for (let r = 0; r < layout.rows; r += every) {
    pen.fillText(
      isolate(layout.rowLabels[r * view.block]),
      layout.left - 6,
      layout.top + (r + 0.5) * layout.cell,
      layout.left - 8,
    );
  }
  pen.textAlign = "left";
  const everyColumn = Math.max(1, Math.ceil(SLANTED_LABEL / layout.cell));
  for (let c = 0; c < layout.columns; c += everyColumn) {
    pen.save();
    pen.translate(layout.left + (c + 0.5) * layout.cell, layout.top - 6);
    pen.rotate(-Math.PI / 3);
    pen.fillText(isolate(layout.columnLabels[c * view.block]), 0, 0, 110);
    pen.restore();
  }
  if (withNumbers) {
    pen.textAlign = "center";
    for (let i = 0; i < grid.values.length; i++) {
      const r = Math.floor(i / grid.columns),
        kind = cellKind(grid, i);
      pen.fillStyle = kind ? color("--ink") : inkOn(colorsOf(step)[levelOfRow(step, grid, r)(grid.values[i])]);
      const text = kind ? MARK_TEXTS[kind] : numberText(grid.values[i], step);
      pen.fillText(
        text,
        layout.left + ((i % grid.columns) + 0.5) * layout.cell,
        layout.top + (r + 0.5) * layout.cell,
        layout.cell - 4,
      );
    }
  }
  return { canvas, layout };
}

function drawMap(step, view, body) {
  const { canvas, layout } = mapCanvas(step, view, Math.max(parts.map.clientWidth - 30, 200));
  const cursor = make("div", { class: "cursor" });
  const label = `${step.name}, ${step.rows} by ${step.columns}: ${MAP_KEYS}`;
  const frame = make(
    "div",
    { class: "map", tabindex: 0, role: "application", "aria-label": label, onkeydown: moveByKey },
    canvas,
    cursor,
  );
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const r = Math.floor((event.clientY - box.top - layout.top) / layout.cell),
      c = Math.floor((event.clientX - box.left - layout.left) / layout.cell);
    if (r < 0 || c < 0 || r >= layout.rows || c >= layout.columns) return null;
    return [view.top + r * view.block, view.left + c * view.block];
  };
  frame.addEventListener("pointermove", (event) => at(event) && moveTo(...at(event)));
  frame.addEventListener("click", (event) => {
    const place = at(event);
    if (!place) return;
    if (view.block > 1) {
      [state.row, state.column] = place;
      zoomIn();
    } else pin(...place);
  });
  frame.placeCursor = () => {
    const r = Math.floor((state.row - view.top) / view.block),
      c = Math.floor((state.column - view.left) / view.block);
    const size = Math.max(layout.cell, 6),
      off = (size - layout.cell) / 2;
    cursor.hidden = r < 0 || c < 0 || r >= layout.rows || c >= layout.columns;
    Object.assign(cursor.style, {
      left: `${layout.left + c * layout.cell - off}px`,
      top: `${layout.top + r * layout.cell - off}px`,
      width: `${size}px`,
      height: `${size}px`,
    });
  };
  body.append(frame);
  markCursor();
}

function markCursor() {
  const frame = parts.map.querySelector(".map");
  if (frame?.placeCursor) frame.placeCursor();
  frame?.querySelector("td.cursor")?.classList.remove("cursor");
  const cell = frame?.querySelector(`td[data-row="${state.row}"][data-column="${state.column}"]`);
  cell?.classList.add("cursor");
  if (cell) scrollSideways(frame.parentElement, cell);
}

/* Bring a cell of a table that is wider than its place into sight; the page itself stays where it is. */
function scrollSideways(body, cell) {
  const place = body.getBoundingClientRect(),
    box = cell.getBoundingClientRect(),
    left = place.left + cell.parentElement.firstElementChild.offsetWidth; // the labels of rows stay
  if (box.right > place.right) body.scrollLeft += box.right - place.right;
  else if (box.left < left) body.scrollLeft -= left - box.left;
}

function moveTo(row, column) {
  if (row === state.row && column === state.column) return;
  Object.assign(state, { row, column });
  markCursor();
  drawCell();
}

/* Choose the query of a row: the lines and the arithmetic of the step follow. */
function pin(row, column) {
  const step = currentStep();
  Object.assign(state, { row, column });
  if (step.rowAxis === "query") state.query = row;
  draw();
}

function moveByKey(event) {
  const step = currentStep(),
    { block } = viewOf(step),
    moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const inside = (i, count) => Math.min(Math.max(i, 0), count - 1);
  if (event.key in moves) {
    const [down, right] = moves[event.key];
    moveTo(inside(state.row + down * block, step.rows), inside(state.column + right * block, step.columns));
  } else if (event.key === "Home") moveTo(state.row, 0);
  else if (event.key === "End") moveTo(state.row, step.columns - 1);
  else if (event.key === "Enter" || event.key === " ") {
    if (block > 1) zoomIn();
    else pin(state.row, state.column);
  } else return;
  event.preventDefault();
  const shown = state.window;
  if (
    shown &&
    (state.row < shown.top ||
      state.row >= shown.top + shown.rows ||
      state.column < shown.left ||
      state.column >= shown.left + shown.columns)
  )
    zoomIn();
  say();
}

/* Read the cell aloud, where the keys moved to it. */
function say() {
  const step = currentStep(),
    part = slice(step),
    i = state.row * step.columns + state.column,
    kind = cellKind(part, i);
  const column = step.columnAxis ? `, ${step.columnAxis} ${axisLabels(step, step.columnAxis)[state.column]}` : "";
  parts.said.textContent = `${step.name}, ${step.rowAxis} ${axisLabels(step, step.rowAxis)[state.row]}${column}: ${kind ? MARK_NAMES[kind] : numberText(part.values[i], step)}`;
}
