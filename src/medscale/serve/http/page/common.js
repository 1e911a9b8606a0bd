// What both pages use: elements of the document, text that is safe to show, and requests.
export const $ = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// Control characters and changes of the writing direction become their code, as base/text.py does.
export function visible(text) {
  return text.replace(/(?![\u200c\u200d])[\p{C}\p{Zl}\p{Zp}]/gu, (letter) => `[U+${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
}

// Options of a select: names in words, followed by the id where two models have the same name.
export function modelOptions(models) {
  const same = (model) => models.filter(({ name }) => name === model.name).length > 1;
  return models.map((model) => new Option(visible(same(model) ? `${model.name} (${model.id})` : model.name), model.id));
}

// The JSON of an answer; an error has the service's words and the status.
export async function call(path, key, options = {}) {
  const headers = key ? { "X-API-Key": key } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw Object.assign(new Error("The service does not answer. Is it still running?"), { status: 0 });
  }
  if (response.ok) return response.json();
  const problem = await response.json().catch(() => ({}));
  const again = response.headers.get("Retry-After");
  const detail = problem.detail ?? `the service answered ${response.status}`;
  const text = `${detail}${again ? ` (try again in ${again} s)` : ""}.`;
  throw Object.assign(new Error(text), { status: response.status });
}
