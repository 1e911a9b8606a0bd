"""Markdown documents: templates whose values are printed as plain text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Undefined

from medscale.base.text import markdown, markdown_code
from medscale.report.names import class_name


class Markdown(str):
    """Text that is Markdown already and is printed as it is."""


def fill(template: Path, variables: Mapping[str, Any], **options: Any) -> str:
    r"""Return the document that a template makes of variables.

    ``| code`` prints a code span, ``| class_name`` a class for readers (``names.class_name``).

    In the template a backslash at the end of a line joins it with the next one.

    Args:
        template: file of the template.
        variables: of the template; one that the template does not get is an error of Jinja.
        options: further options of Jinja's environment.
    """
    text = template.read_text(encoding="utf-8").replace("\\\n", "")
    environment = Environment(  # noqa: S701 (_printed escapes, for Markdown)
        undefined=StrictUndefined, keep_trailing_newline=True, finalize=_printed, **options
    )
    environment.filters["class_name"] = class_name
    environment.filters["code"] = lambda value: Markdown(markdown_code(str(value)))
    return environment.from_string(text).render(variables)


def _printed(value: Any) -> Any:
    return value if isinstance(value, Markdown | Undefined) else markdown(str(value))
