"""Settings of the docs site, which `make docs` builds into site/ without the network."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes

import medscale

ROOT = Path(__file__).parent.parent

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "medscale"
author = copyright = "The medscale authors"
version = release = medscale.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
root_doc = "index"
html_theme = "furo"
html_title = f"medscale {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
# Of these, each colour has a contrast of 4.5 to its background.
pygments_style, pygments_dark_style = "default", "monokai"
myst_heading_anchors = 4  # headings down to this level can be linked to
highlight_language = "text"  # of blocks that name no language
smartquotes_action = "qe"  # quotes and ellipses; the two hyphens of an option stay
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_use_unqualified_type_names = True
copybutton_exclude = ".linenos, .gp, .go"
# Files of the root that the site shows as pages, by the page's name.
ROOT_PAGES = {
    "reference/architecture": "ARCHITECTURE.md",
    "reference/changes": "CHANGELOG.md",
    "reference/contributing": "CONTRIBUTING.md",
    "reference/conduct": "CODE_OF_CONDUCT.md",
    "reference/security": "SECURITY.md",
}
COMMANDS = "reference/commands"


def text_of_root(name: str) -> str:
    """Return the text of a page's file in the root, with its links as those of the page."""
    pages = {file: f"{Path(page).name}.md" for page, file in ROOT_PAGES.items()}

    def moved(link: re.Match[str]) -> str:
        path = link[1]
        if path in pages:
            return f"]({pages[path]}"
        if path.startswith("docs/"):
            return f"](../{path.removeprefix('docs/')}"
        return f"](../../{path}"

    text = (ROOT / ROOT_PAGES[name]).read_text(encoding="utf-8")
    return re.sub(r"\]\((?!\w+:)([^)#]+)", moved, text)


def setup(app: Sphinx) -> None:
    """Fill the pages whose text is made at each build: commands, and files of the root."""
    sys.path.insert(0, str(ROOT / "docs"))
    from command_pages import markdown

    def fill(app: Sphinx, name: str, source: list[str]) -> None:
        if name == COMMANDS:
            source[0] += "\n" + markdown()
        elif name in ROOT_PAGES:
            source[0] = text_of_root(name)
            app.env.note_dependency(ROOT / ROOT_PAGES[name])

    def set_dashes(app: Sphinx, page: nodes.document) -> None:
        # Sphinx separates a parameter from its description by two hyphens.
        for text in list(page.findall(nodes.Text)):
            if text == " -- ":
                text.parent.replace(text, nodes.Text(" – "))

    app.connect("source-read", fill)
    app.connect("doctree-read", set_dashes)
    # The commands may have changed where the page's file has not.
    app.connect("env-get-outdated", lambda *_: [COMMANDS])
