/* Elements, and the bar at the top, where everything is chosen. */

// ── elements ─────────────────────────────────────────────────────────────────────────────────────
/* An element with attributes, listeners and children; text is always text, never markup. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/* A text in a direction of its own; the index of a token stays before it. */
function bdi(text) {
  const [, index, token] = /^(\d+ )?(.*)$/s.exec(String(text ?? ""));
  return index ? make("bdi", { dir: "ltr" }, index, make("span", { dir: "auto" }, token)) : make("bdi", {}, token);
}
const withTokens = (sentence) =>
  sentence.split(/(“[^”]*”)/).map((piece) => (piece.startsWith("“") ? bdi(piece) : piece));
const button = (text, onclick, more = {}) => make("button", { type: "button", onclick, ...more }, text);
const parts = {}; // the panels of the page, by name
const isEdited = () => Boolean(layer().isEdited);

function select(name, options, value, onchange) {
  if (options.length < 2) return null;
  const choices = options.map(([key, text]) =>
    make("option", { value: key, selected: String(key) === String(value) }, text),
  );
  return make(
    "label",
    {},
    name,
    make("select", { "data-name": name, onchange: (event) => onchange(event.target.value) }, ...choices),
  );
}

// ── the bar ──────────────────────────────────────────────────────────────────────────────────────
function drawBar() {
  const { steps, at } = layer(),
    focused = document.activeElement?.dataset?.name;
  const numbered = (axis, count) => Array.from({ length: count }, (_, i) => [i, `${axis} ${at[axis]?.[i] ?? i}`]);
  const choose = (key) => (value) => update({ [key]: Number(value), window: key === "layer" ? null : state.window });
  parts.bar.replaceChildren(
    ...[
      button("◀ Back", () => moveStep(-1), { disabled: state.step === 0, "data-name": "back" }),
      button("Next ▶", () => moveStep(1), { disabled: state.step === steps.length - 1, "data-name": "next" }),
      make("span", { class: "quiet" }, `step ${state.step + 1} of ${steps.length}`),
      select(
        "layer",
        page.layers.map((one, i) => [i, one.name || `layer ${i}`]),
        state.layer,
        choose("layer"),
      ),
      select(
        "step",
        steps.map((step, i) => [i, step.name]),
        state.step,
        choose("step"),
      ),
      select("batch", numbered("batch", batchCount()), state.batch, choose("batch")),
      select("head", numbered("head", headCount()), state.head, choose("head")),
      select("colours", Object.entries(scalesOf(currentStep())), scaleOf(currentStep()), (scale) => update({ scale })),
      button("light / dark", switchTheme, { "data-name": "theme" }),
      button("PNG", savePicture, { "data-name": "png", title: "save the step that is shown as a picture" }),
      button("JSON", saveNumbers, { "data-name": "json", title: "save every number of the page" }),
    ].filter(Boolean),
  );
  if (focused) parts.bar.querySelector(`[data-name="${focused}"]`)?.focus();
}

function moveStep(by) {
  update({ step: Math.min(Math.max(state.step + by, 0), layer().steps.length - 1) });
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function switchTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  draw();
}
