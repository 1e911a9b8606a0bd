"""JavaScript that tests run in a page: contrasts of texts, wide elements, a dropped file."""

# Contrast of each text with its background (WCAG 2.1, 1.4.3), the lowest first; large text needs 3,
# other text 4.5.
CONTRASTS = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const texts = [...node.childNodes].filter((child) => child.nodeType === 3);
    const own = texts.some((child) => child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest(".skip, noscript")) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(parse(style.color)), light(behind(node))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const wanted = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    const text = node.textContent.trim().slice(0, 40);
    found.push({ text, share: (a + 0.05) / (b + 0.05) / wanted });
  }
  return found.sort((x, y) => x.share - y.share);
}"""
# Elements that reach beyond the right edge of the window, without those that scroll by themselves.
WIDER = """() => [...document.querySelectorAll("body *")]
  .filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5)
  .map((node) => node.outerHTML.slice(0, 80))"""
DROP = """([name, kind, data]) => {
  const given = new DataTransfer();
  given.items.add(new File([Uint8Array.from(data)], name, { type: kind }));
  for (const what of ["dragenter", "dragover", "drop"]) {
    const event = new DragEvent(what, { dataTransfer: given, bubbles: true, cancelable: true });
    document.getElementById("drop").dispatchEvent(event);
  }
}"""
