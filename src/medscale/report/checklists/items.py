"""The files of checklists (checklists/*.yaml): items, and which of them a configuration answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.base.section import Strict
from medscale.base.suggest import suggestion
from medscale.base.text import amount
from medscale.config.configuration import Config
from medscale.config.yaml_file import read_section
from medscale.report import sources

FOLDER = ROOT / "checklists"
STOP = "stop"


class Item(Strict):
    """An item of a checklist, with the answers that it has for any study.

    Answers are Jinja templates over the facts of the paper: ``<< value >>``, ``<% statement %>``.
    An answer of the configuration (``studies.<name>.checklist.answers``) replaces that of a study.
    """

    asks: str = Field(min_length=1, description="what it asks for, in our words")
    answer: str | None = Field(None, description="one answer for all studies")
    by_study: str | None = Field(None, description="an answer for each study, by its facts `s`")
    project: str | None = Field(
        None, description="as by_study, for the project's own studies alone"
    )
    not_done: str | None = Field(None, description="the reason why nobody does it")

    @model_validator(mode="after")
    def _one_answer(self) -> Item:
        answers = [self.answer, self.by_study, self.project, self.not_done]
        if sum(answer is not None for answer in answers) > 1:
            raise ValueError("give one of answer, by_study, project and not_done")
        return self


class Listing(Strict):
    """A checklist."""

    title: str
    cite: str = Field(description="key in paper/references.bib")
    items: dict[str, Item] = Field(min_length=1)


@dataclass(frozen=True)
class StudyAnswers:
    """What a study's configuration says about checklists."""

    personal: bool  # whether the images are a person's own
    answers: Mapping[str, str]  # by item, such as "claim.12"
    stops: bool  # whether an item without an answer stops the paper


def files() -> list[Path]:
    """Return the files of checklists, by name."""
    return sorted(FOLDER.glob("*.yaml"))


def read_listing(path: Path) -> Listing:
    """Read a checklist; MedscaleError for a missing file and wrong fields, each named."""
    return read_section(path, Listing)


def study_answers(config: Config) -> dict[str, StudyAnswers]:
    """Return the answers of each active study; at demo scale no missing answer stops the paper."""
    return {
        name: StudyAnswers(
            personal=config.study(name).source.kind == sources.PERSONAL,
            answers=config.study(name).checklist.answers,
            stops=config.study(name).checklist.unanswered == STOP and config.scale == "full",
        )
        for name in config.active
    }


def check_names(listings: Mapping[str, Listing], studies: Mapping[str, StudyAnswers]) -> None:
    """Refuse answers to items that no checklist has; the MedscaleError names the closest item."""
    item_names = [f"{name}.{item}" for name, listing in listings.items() for item in listing.items]
    for study, of_study in studies.items():
        for item in of_study.answers:
            if item not in item_names:
                text = f"studies.{study}.checklist.answers: no checklist has the item {item!r}"
                hint = suggestion(item, item_names).strip()
                raise MedscaleError("; ".join(filter(None, [text, hint])))


def unanswered(item: Item, name: str, studies: Mapping[str, StudyAnswers]) -> list[str]:
    """Return the studies for which an item, such as ``claim.12``, has no answer."""
    if item.answer is not None or item.by_study is not None or item.not_done is not None:
        return []
    return [
        study
        for study, of_study in studies.items()
        if name not in of_study.answers and (item.project is None or of_study.personal)
    ]


def stopping(
    listings: Mapping[str, Listing], studies: Mapping[str, StudyAnswers]
) -> dict[str, list[str]]:
    """Return the items without an answer that stop the paper, each with its studies."""
    items = {
        f"{name}.{key}": item
        for name, listing in listings.items()
        for key, item in listing.items.items()
    }
    stops = {
        name: [study for study in unanswered(item, name, studies) if studies[study].stops]
        for name, item in items.items()
    }
    return {name: missing for name, missing in stops.items() if missing}


def remedy(items: Mapping[str, Sequence[str]]) -> str:
    """Return the message on items without an answer: which, and where to answer them."""
    listed = ", ".join(f"{item} ({', '.join(studies)})" for item, studies in items.items())
    study = next(iter(items.values()))[0]
    return (
        f"{amount(len(items), 'item')} of the checklists without an answer: {listed}. Answer them "
        f"in studies.{study}.checklist.answers, such as "
        f"{{{next(iter(items))}: 'not done, because …'}}, or print them as not answered "
        "by checklist.unanswered: print (docs/claims.md)"
    )
