// The page: lists the service's models, sends images, and shows the predictions.
import { $, call, element, modelOptions, visible } from "./common.js";
import { csv, json, save } from "./download.js";

const FIRST = 8; // classes that are shown before "Show all"
const TALLEST = 34; // largest height of a picture, in rem
const state = { models: [], limits: null, key: "", files: [], answer: null, metadata: {}, at: 0, all: false, request: null };

function plural(count, singular, many = `${singular}s`) {
  return `${count} ${count === 1 ? singular : many}`;
}

function words(name) {
  return visible(name.replaceAll("_", " "));
}

function className(name) {
  const titles = currentModel().class_titles;
  return Object.hasOwn(titles, name) ? visible(titles[name]) : words(name);
}

function percent(value) {
  return `${(100 * value).toFixed(1)} %`;
}

function whole(value) {
  return `${Math.round(100 * value)}\u00a0%`;
}

function say(text) {
  $("status").textContent = visible(text);
}

function complain(text) {
  $("alert").textContent = visible(text);
  $("alert").hidden = !text;
}

function currentModel() {
  return state.models[$("model").selectedIndex];
}

function describe(model) {
  const scores = model.scores.map(({ name, mean, low, high }) => {
    const form = name === "accuracy" ? percent : (value) => value.toFixed(3);
    const spread = low == null ? "" : ` (95 % interval ${form(low)} to ${form(high)})`;
    return `${name} ${form(mean)}${spread}`;
  });
  const parts = [model.task === "detection" ? "finds boxes" : plural(model.classes.length, "class", "classes")];
  const ofFolds = model.folds ? ` of ${model.folds} folds` : "";
  if (model.networks > 1) parts.push(`mean of ${model.networks} networks${ofFolds}`);
  const tested = model.folds ? "single networks on images that they were not trained on" : "on its test images";
  if (scores.length) parts.push(`${tested}: ${scores.join(", ")}`);
  $("about").textContent = parts.join("; ");
  $("model-id").textContent = visible(model.id);
  $("examples").hidden = model.examples.length === 0;
  $("example-buttons").replaceChildren(...model.examples.map(example));
  $("mark").textContent = model.mark;
  $("mark").hidden = !model.mark;
  $("metadata").hidden = model.metadata.length === 0;
  $("columns").replaceChildren(...model.metadata.map(column));
}

function example(address, at) {
  const button = element("button", { type: "button" }, element("img", { src: address, alt: "" }), `Example ${at + 1}`);
  button.addEventListener("click", async () => {
    const response = await fetch(address);
    if (!response.ok) return complain("The example cannot be read.");
    choose([new File([await response.blob()], `synthetic example ${at + 1}.jpg`, { type: "image/jpeg" })]);
  });
  return button;
}

function column({ name, words: values }) {
  const options = [new Option("unknown", ""), ...(values ?? []).map((word) => new Option(visible(word), word))];
  const field = values
    ? element("select", { name }, ...options)
    : element("input", { name, type: "number", step: "any", placeholder: "unknown" });
  field.addEventListener("change", predict);
  return element("label", {}, element("span", { textContent: words(name) }), field);
}

function facts() {
  const fields = [...$("columns").querySelectorAll("select, input")].filter((field) => field.value !== "");
  return Object.fromEntries(fields.map((field) => [field.name, field.type === "number" ? Number(field.value) : field.value]));
}

function form() {
  const data = new FormData();
  for (const file of state.files) data.append("images", file);
  data.append("metadata", JSON.stringify(facts()));
  return data;
}

function tooMuch() {
  const bytes = state.files.reduce((sum, file) => sum + file.size, 0);
  const { images, megabytes } = state.limits;
  if (state.files.length > images) return `At most ${plural(images, "image")} at once; you chose ${state.files.length}.`;
  if (bytes > megabytes * 1e6) return `At most ${megabytes} MB at once; you chose ${(bytes / 1e6).toFixed(0)} MB.`;
  return "";
}

async function predict() {
  if (!state.files.length) return;
  state.request?.abort();
  const request = (state.request = new AbortController());
  const model = currentModel();
  $("results").hidden = true;
  complain(tooMuch());
  if (!$("alert").hidden) return say("");
  say(`Predicting ${plural(state.files.length, "image")} …`);
  $("busy").hidden = false;
  const query = new URLSearchParams({ model: model.id, explain: model.explains, preview: true });
  const begun = performance.now();
  const metadata = facts();
  try {
    const answer = await call(`/v1/predict?${query}`, state.key, { method: "POST", body: form(), signal: request.signal });
    Object.assign(state, { answer, metadata, at: 0, all: false });
    show();
    const first = answer.results.find((result) => !result.error);
    say(`Done in ${((performance.now() - begun) / 1000).toFixed(1)} s. Image ${first.number}: ${inWords(first)}`);
  } catch (error) {
    if (error.name === "AbortError") return;
    say("");
    complain(state.files.length === 1 ? `${state.files[0].name}: ${error.message}` : error.message);
    if (error.status === 401) askForKey();
  } finally {
    if (state.request === request) $("busy").hidden = true;
  }
}

function inWords(result) {
  if (result.boxes) return result.boxes.length ? plural(result.boxes.length, "box", "boxes") : "no boxes";
  return `${className(result.label)}, ${percent(result.probabilities[result.label])}`;
}

function show() {
  const { results, calibration } = state.answer;
  const result = results[state.at];
  const file = state.files[state.at];
  $("results").hidden = false;
  $("images").hidden = results.length === 1;
  $("images").replaceChildren(...results.map(tab));
  $("picture").hidden = $("answer-name").hidden = Boolean(result.error);
  document.querySelector(".answer").hidden = Boolean(result.error);
  complain(result.error ? `${file.name}: ${result.error.detail}.` : "");
  if (result.error) return;
  picture(result, file);
  $("answer-name").textContent = result.note ? `${inWords(result)} (${result.note})` : inWords(result);
  $("predictions").replaceChildren(result.boxes ? boxes(result) : bars(result));
  $("calibration").textContent = calibration.meaning;
  operating(result);
}

function tab(result, at) {
  const button = element("button", { type: "button", textContent: visible(state.files[at].name), className: result.error ? "bad" : "" });
  button.setAttribute("aria-current", String(at === state.at));
  button.addEventListener("click", () => {
    Object.assign(state, { at, all: false });
    show();
    $("images").children[at].firstChild.focus();
    say(result.error ? "" : `Image ${result.number}: ${inWords(result)}`);
  });
  return element("li", {}, button);
}

function picture(result, file) {
  const { heatmap } = result;
  const alt = heatmap ? `Heat map over ${file.name}` : file.name;
  const parts = [element("img", { src: result.preview, alt })];
  if (heatmap) parts.push(element("img", { src: heatmap, alt: "", className: "heat layer" }));
  for (const [number, box] of (result.boxes ?? []).entries()) {
    const frame = element("div", { className: "box layer" }, element("span", { textContent: number + 1 }));
    frame.classList.toggle("low", box.y < 0.06 * result.height);
    parts.push(placed(frame, box, result));
  }
  const entire = result.region.width >= result.width && result.region.height >= result.height;
  if (!entire) parts.push(placed(element("div", { className: "region" }), result.region, result));
  framed($("picture"), result, parts);
  framed($("original"), result, heatmap ? [element("img", { src: result.preview, alt: file.name })] : []);
  $("original-figure").hidden = !heatmap;
  document.querySelector(".answer").classList.toggle("pair", Boolean(heatmap));
  document.querySelector(".controls").hidden = !(heatmap || result.boxes?.length);
  $("layer-name").textContent = heatmap ? "Heat map" : "Boxes";
  $("strength-label").hidden = !heatmap;
  $("original-caption").textContent = `Original: ${visible(file.name)}`;
  const part = entire ? "" : "The network received the part within the dashed line. ";
  const caption = heatmap ? [`Image areas that raise the score of “${className(result.label)}” (Grad-CAM). `, part, scale()] : [part];
  $("caption").replaceChildren(...caption);
  $("limits-of-map").hidden = !heatmap;
  layer();
}

function framed(frame, { width, height }, parts) {
  frame.replaceChildren(...parts);
  frame.style.aspectRatio = `${width} / ${height}`;
  frame.style.maxWidth = `${(TALLEST * width) / height}rem`;
}

// Thresholds of the class to detect; of several classes, those of the most probable one.
function operating({ label, decisions }) {
  const points = currentModel().operating.map((point, at) => ({ ...point, positive: decisions?.[at]?.positive }));
  const single = new Set(points.map((point) => point.label)).size === 1;
  const some = decisions ? points.filter((point) => single || point.label === label) : [];
  $("operating").hidden = some.length === 0;
  $("points").replaceChildren(...some.map(operatingPoint));
  const before = state.answer.calibration.method !== "none" ? "Thresholds are of probabilities before calibration. " : "";
  const replicates = Math.max(0, ...some.map((point) => point.replicates));
  const means = replicates > 1 ? `Sensitivity and specificity are means over ${replicates} replicates of the run.` : "";
  $("points-note").textContent = before + means;
}

function operatingPoint({ label, threshold, validation_specificity, sensitivity, specificity, positive }) {
  const name = `“${className(label)}”`;
  const decision = positive
    ? `Above ${percent(threshold)}: this image counts as ${name}.`
    : `Not above ${percent(threshold)}: this image does not count as ${name}.`;
  return element("li", {}, element("strong", { textContent: decision }),
    ` The threshold is exceeded by at most ${whole(1 - validation_specificity)} of the validation images without ${name}.`
    + ` On the test images it finds ${rate(sensitivity)} of ${sensitivity.images} with ${name} (sensitivity), and passes ${rate(specificity)} of ${specificity.images} without (specificity).`);
}

function rate({ value, low, high }) {
  return low == null || high == null ? whole(value) : `${whole(value)} (95 % interval ${whole(low)} to ${whole(high)})`;
}

function placed(part, region, { width, height }) {
  Object.assign(part.style, {
    left: `${(100 * region.x) / width}%`,
    top: `${(100 * region.y) / height}%`,
    width: `${(100 * region.width) / width}%`,
    height: `${(100 * region.height) / height}%`,
  });
  return part;
}

function scale() {
  return element("span", { className: "scale" }, "little", element("i"), "much");
}

function layer() {
  for (const part of $("picture").querySelectorAll(".layer")) {
    part.hidden = !$("layer").checked;
    if (part.classList.contains("heat")) part.style.opacity = $("strength").value / 100;
  }
}

function bars({ probabilities }) {
  const sorted = Object.entries(probabilities).sort(([, a], [, b]) => b - a);
  const some = state.all ? sorted : sorted.slice(0, FIRST);
  $("more").hidden = sorted.length <= FIRST;
  $("more").textContent = state.all ? "Show fewer" : `Show all ${sorted.length} classes`;
  $("more").setAttribute("aria-expanded", String(state.all));
  return element("ol", { className: "bars" }, ...some.map(([name, value]) => bar(className(name), value, percent(value))));
}

function bar(name, value, text) {
  const fill = element("span", { className: "fill" });
  requestAnimationFrame(() => (fill.style.width = `${100 * value}%`));
  const track = element("span", { className: "track" }, fill);
  const parts = [element("span", { className: "label", textContent: name }), " ", element("span", { className: "value", textContent: text })];
  return element("li", {}, ...parts, track);
}

function boxes({ boxes: rectangles }) {
  $("more").hidden = true;
  const row = (box, number) => bar(`${number + 1}. ${className(box.label)}`, box.confidence, `confidence ${box.confidence.toFixed(2)}`);
  return element("ol", { className: "bars" }, ...rectangles.map(row));
}

function askForKey() {
  $("key-form").hidden = false;
  $("ask").hidden = true;
  $("key").focus();
}

async function begin() {
  try {
    const { models, limits } = await call("/v1/models", state.key);
    Object.assign(state, { models, limits });
  } catch (error) {
    if (error.status === 401) {
      if (state.key) complain("The service does not know this key.");
      return askForKey();
    }
    return complain(error.message);
  }
  complain("");
  $("key-form").hidden = true;
  $("ask").hidden = false;
  $("model").replaceChildren(...modelOptions(state.models));
  const { images, megabytes, megapixels } = state.limits;
  $("limits").textContent =
    `JPEG, PNG, TIFF, WebP, GIF, BMP or DICOM; ${plural(images, "image")}, ${megabytes} MB and ${megapixels} megapixels at most`;
  describe(currentModel());
}

function choose(files) {
  state.files = [...files];
  predict();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  state.key = $("key").value;
  begin();
});
$("ask").addEventListener("submit", (event) => event.preventDefault());
$("model").addEventListener("change", () => {
  describe(currentModel());
  predict();
});
$("files").addEventListener("change", () => choose($("files").files));
$("files").addEventListener("click", () => ($("files").value = "")); // so that choosing the same image again is a change
$("layer").addEventListener("change", layer);
$("strength").addEventListener("input", layer);
$("more").addEventListener("click", () => {
  state.all = !state.all;
  $("predictions").replaceChildren(bars(state.answer.results[state.at]));
});
$("save-json").addEventListener("click", () => {
  save(json(state.answer, state.files, state.metadata), "application/json", "medscale-prediction.json");
});
$("save-csv").addEventListener("click", () => {
  save(csv(state.answer, state.files), "text/csv;charset=utf-8", "medscale-prediction.csv");
});
document.addEventListener("paste", (event) => {
  const pasted = [...event.clipboardData.files];
  if (pasted.length && !$("ask").hidden) choose(pasted);
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // otherwise the browser opens a file that is dropped elsewhere
    $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length && !$("ask").hidden) choose(event.dataTransfer.files);
  });
}
begin();
