// The description of the API, from openapi.json, and a form that sends a request.
import { $, call, element, modelOptions, visible } from "./common.js";

const LONGEST = 60; // letters of a picture (data URL) that are shown

function table(caption, head, rows) {
  if (!rows.length) return "";
  const line = (tag, cells) => element("tr", {}, ...cells.map((cell) => element(tag, {}, cell)));
  return element("div", {}, element("h3", { textContent: caption }),
    element("table", {}, element("thead", {}, line("th", head)), element("tbody", {}, ...rows.map((row) => line("td", row)))));
}

// Code that may break after an underscore.
function code(text) {
  const parts = text.split(/(?<=_)/);
  return element("code", {}, ...parts.flatMap((part, at) => (at ? [element("wbr"), part] : [part])));
}

function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.enum) return schema.enum.join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  if (schema.additionalProperties) return `${kind(schema.additionalProperties)} by name`;
  return schema.format === "binary" ? "file" : schema.type ?? "anything";
}

function fields(schema) {
  return Object.entries(schema.properties ?? {}).map(([name, field]) => [code(name), kind(field), field.description ?? ""]);
}

function sample(title, text) {
  return [element("h3", { textContent: title }), element("pre", { textContent: text })];
}

// A word for the shell, whatever its letters are.
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function curl(name, path, key = "") {
  return `curl ${key ? '-H "X-API-Key: $KEY" ' : ""}-F ${quoted(`images=@${name}`)} ${quoted(location.origin + path)}`;
}

function python(path) {
  return `import httpx

with open("photo.jpg", "rb") as image:
    answer = httpx.post(
        "${location.origin}${path}",
        files={"images": image},
        timeout=60,
    )
answer.raise_for_status()
for result in answer.json()["results"]:
    print(result.get("label"), result.get("probabilities") or result.get("boxes"))`;
}

function operation(path, verb, details) {
  const form = Object.entries(details.requestBody?.content ?? {});
  const parameters = (details.parameters ?? []).map((parameter) => [code(parameter.name), kind(parameter.schema), parameter.description ?? ""]);
  const answers = Object.entries(details.responses).map(([status, answer]) => {
    const bodies = Object.values(answer.content ?? {});
    const kinds = bodies.map((body) => (body.schema ? kind(body.schema) : ""));
    return [code(status), kinds.join(""), answer.description];
  });
  return element("section", { className: "card" },
    element("h2", {}, element("span", { className: "verb", textContent: verb.toUpperCase() }), code(path)),
    element("p", { textContent: [details.summary, details.description].filter(Boolean).join(". ") }),
    ...(verb === "post" ? sample("curl", curl("photo.jpg", path)).concat(sample("Python", python(path))) : []),
    table("In the address", ["name", "kind", "meaning"], parameters),
    ...form.map(([type, body]) => table(`Body: ${type}`, ["field", "kind", "meaning"], fields(body.schema))),
    table("Answers", ["status", "content", "when"], answers));
}

async function listModels() {
  const form = $("try");
  try {
    const { models } = await call("/v1/models", form.key.value);
    form.model.replaceChildren(...modelOptions(models));
    $("try-status").textContent = "";
  } catch (error) {
    if (error.status === 401) $("key-label").hidden = false;
    $("try-status").textContent = visible(error.message);
  }
}

async function send(event) {
  event.preventDefault();
  const form = $("try");
  const image = form.image.files[0];
  const path = `/v1/predict?${new URLSearchParams({ model: form.model.value, explain: form.explain.checked })}`;
  const body = new FormData();
  body.append("images", image);
  $("tried").hidden = true;
  $("try-status").textContent = "Sending …";
  try {
    const answer = await call(path, form.key.value, { method: "POST", body });
    $("try-status").textContent = "Answered.";
    $("request").textContent = visible(curl(image.name, path, form.key.value));
    $("answer").textContent = JSON.stringify(answer, shortened, 2).split("\n").map(visible).join("\n");
    $("tried").hidden = false;
  } catch (error) {
    $("try-status").textContent = visible(error.message);
  }
}

function shortened(name, value) {
  const isPicture = typeof value === "string" && value.startsWith("data:");
  return isPicture ? `${value.slice(0, LONGEST)}… (${value.length} letters)` : value;
}

$("try").addEventListener("submit", send);
$("try").key.addEventListener("change", listModels);
listModels();

try {
  const response = await fetch("/openapi.json");
  const api = await response.json();
  const operations = Object.entries(api.paths).flatMap(([path, verbs]) =>
    Object.entries(verbs).map(([verb, details]) => operation(path, verb, details)));
  const schemas = Object.entries(api.components.schemas).filter(([name]) => !/ValidationError/.test(name)).map(([name, schema]) =>
    element("section", { className: "card", id: name }, element("h2", {}, code(name)),
      element("p", { textContent: schema.description ?? "" }), table("Fields", ["name", "kind", "meaning"], fields(schema))));
  $("paths").replaceChildren(...operations, ...schemas);
} catch {
  $("wait").textContent = "openapi.json cannot be read; is the service still running?";
}
