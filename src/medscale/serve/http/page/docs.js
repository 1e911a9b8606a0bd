// The description of the API, from openapi.json.
const main = document.getElementById("paths");

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function table(caption, head, rows) {
  if (!rows.length) return "";
  const line = (tag, cells) => element("tr", {}, ...cells.map((cell) => element(tag, {}, cell)));
  return element("div", {}, element("h3", { textContent: caption }),
    element("table", {}, element("thead", {}, line("th", head)), element("tbody", {}, ...rows.map((row) => line("td", row)))));
}

function code(text) {
  return element("code", { textContent: text });
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
    verb === "post" ? element("pre", { textContent: `curl -F images=@photo.jpg '${location.origin}${path}'` }) : "",
    table("In the address", ["name", "kind", "meaning"], parameters),
    ...form.map(([type, body]) => table(`Body: ${type}`, ["field", "kind", "meaning"], fields(body.schema))),
    table("Answers", ["status", "content", "when"], answers));
}

try {
  const response = await fetch("/openapi.json");
  const api = await response.json();
  const operations = Object.entries(api.paths).flatMap(([path, verbs]) =>
    Object.entries(verbs).map(([verb, details]) => operation(path, verb, details)));
  const schemas = Object.entries(api.components.schemas).filter(([name]) => !/ValidationError/.test(name)).map(([name, schema]) =>
    element("section", { className: "card", id: name }, element("h2", {}, code(name)),
      element("p", { textContent: schema.description ?? "" }), table("Fields", ["name", "kind", "meaning"], fields(schema))));
  main.replaceChildren(...operations, ...schemas);
} catch {
  document.getElementById("wait").textContent = "openapi.json cannot be read; is the service still running?";
}
