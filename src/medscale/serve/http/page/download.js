// The answer as a file: JSON as the API gives it, or a table with the columns of `medscale predict`.
import { element } from "./common.js";

export function save(text, type, name) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // the browser may still be reading
}

// Pictures are left out, and each result has the name of its file.
export function json(answer, files, metadata) {
  const results = answer.results.map(({ preview, heatmap, ...result }, at) => ({ path: files[at].name, ...result }));
  return JSON.stringify({ ...answer, metadata, results }, null, 2);
}

export function csv({ model, mark, calibration, results }, files) {
  const rows = results.flatMap((result, at) => rowsOf(result, calibration.method).map((row) => ({
    path: files[at].name, ...row, error: result.error?.detail, note: result.note, model, mark,
  })));
  const fullest = rows.find((row) => !row.error) ?? rows[0];
  const columns = Object.keys(fullest);
  return [columns, ...rows.map((row) => columns.map((name) => row[name]))].map((row) => row.map(cell).join(",") + "\r\n").join("");
}

function rowsOf({ error, boxes, label, probabilities }, calibration) {
  if (error) return [{}];
  if (boxes) {
    const names = ["label", "x", "y", "width", "height", "confidence"];
    return (boxes.length ? boxes : [{}]).map((box) => Object.fromEntries(names.map((name) => [name, box[name]])));
  }
  const shares = Object.entries(probabilities).map(([name, value]) => [`p_${name}`, value]);
  return [{ label, probability: probabilities[label], ...Object.fromEntries(shares), calibration }];
}

// RFC 4180; a spreadsheet would take a text that begins with one of = + - @ for a formula.
function cell(value) {
  if (value == null) return "";
  const text = typeof value === "string" && /^\s*[=+\-@]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
