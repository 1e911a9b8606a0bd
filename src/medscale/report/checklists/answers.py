"""The answers to the items of a checklist, filled with the facts of the studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError, Undefined

from medscale.base.errors import MedscaleError
from medscale.report.checklists.items import Item, StudyAnswers
from medscale.report.names import class_name
from medscale.report.syntax import SYNTAX

NOT_ANSWERED = "not answered"
NOT_DONE = "not done, because"


def environment() -> Environment:
    """Return the environment of answers: plain text, with the marks of the paper's templates."""
    jinja = Environment(
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 (the table escapes the text, for LaTeX)
        finalize=_plain,
        **SYNTAX,
    )
    jinja.filters["class_name"] = class_name
    return jinja


def answer(
    name: str, item: Item, studies: Mapping[str, StudyAnswers], facts: Mapping[str, Any]
) -> str:
    """Return the answer to an item for all studies.

    An answer of a study alone begins with its title, where there are several studies. Any other
    answer begins with a capital letter or a code word; the words of a user stay as they are. Raises
    MedscaleError, with the item, for a fact that does not exist.

    Args:
        name: of the item, such as ``claim.12``.
        facts: variables of the paper (``medscale.report.paper.facts``).
    """
    own = {study: s.answers[name] for study, s in studies.items() if name in s.answers}
    remaining_studies = [
        s for s in facts["studies"] if s["name"] in studies and s["name"] not in own
    ]
    if item.not_done is not None and remaining_studies:
        general = f"{NOT_DONE} {item.not_done}"
    else:
        general = (
            _filled(name, item.answer, facts)
            if item.answer is not None and remaining_studies
            else ""
        )
    parts = [(s["name"], own[s["name"]]) for s in facts["studies"] if s["name"] in own]
    if not general:
        parts += [(s["name"], _of_study(name, item, studies, facts, s)) for s in remaining_studies]
    text = "; ".join(filter(None, [general, _joined(parts, facts["studies"])]))
    return text if own else text[:1].upper() + text[1:]


def _of_study(
    name: str,
    item: Item,
    studies: Mapping[str, StudyAnswers],
    facts: Mapping[str, Any],
    study: Mapping[str, Any],
) -> str:
    if item.by_study is not None:
        return _filled(name, item.by_study, {**facts, "s": study}) or NOT_ANSWERED
    if item.project is not None and not studies[study["name"]].personal:
        return _filled(name, item.project, {**facts, "s": study})
    return NOT_ANSWERED


def _joined(parts: Sequence[tuple[str, str]], studies: Sequence[Mapping[str, Any]]) -> str:
    """Return the answers of studies, with the titles of those that share it before each."""
    titles = {study["name"]: study["title"] for study in studies}
    by_text: dict[str, list[str]] = {}
    for name, text in parts:
        by_text.setdefault(text, []).append(titles[name])
    if len(by_text) == 1 and len(parts) == len(studies):
        return next(iter(by_text))
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in by_text.items())


def _filled(name: str, template: str, variables: Mapping[str, Any]) -> str:
    try:
        text = environment().from_string(template).render(variables)
    except (TemplateError, LookupError, TypeError, ValueError) as error:
        raise MedscaleError(f"checklists: the answer to {name}: {error}") from None
    return " ".join(text.split())


def _plain(value: Any) -> Any:
    """Return a printed value as a person writes it: few digits, no brackets around lists."""
    if isinstance(value, Undefined):
        return value
    if value is None:
        return "not known"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else value
