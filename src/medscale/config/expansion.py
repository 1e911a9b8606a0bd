"""Entries of ``studies`` that stand for several: external sets, held-out sources, sweeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

from pydantic import ValidationError

from medscale.config.comparisons import Sweep
from medscale.config.fault import SettingFault
from medscale.engine.plan import Recipe

# Settings of a study that neither its external sets nor the points of its sweep take.
NOT_TAKEN = (
    *("external", "variant_of", "benchmarks", "profile", "detect", "datasheet"),
    *("convergence", "sweep"),
)
# Settings that only the section of a study in the paper shows.
NOT_OF_VARIANTS = ("sweep", "external", "convergence")


def expand(studies: dict[str, Any]) -> dict[str, Any]:
    """Return the studies with an entry for each external set, held-out source and sweep's point.

    ``external`` of a study makes entries ``<study>_external<n>`` with ``external_of``: their images
    are listed and audited like those of a study, and all are test images. A variant whose
    ``split.held_out`` is a list makes a variant ``<name>_<value>`` for each value. ``sweep`` of a
    study makes entries ``<study>_lr_<value>`` with ``sweep_of``, which use the study's index and
    shards; a point that equals the study's own recipe makes none. Raises SettingFault for a list
    outside a variant, an empty one, settings that a variant does not have (``NOT_OF_VARIANTS``),
    and names that are used twice. Invalid settings are left to the validation.
    """
    entries: dict[str, Any] = {}
    for name, study in studies.items():
        owner = study.get("variant_of")
        for setting in NOT_OF_VARIANTS:
            if owner is not None and study.get(setting):
                text = "a variant has no section in the paper that could show it; "
                text += f"give {setting} to {owner}"
                raise SettingFault(("studies", name, setting), text)
        keys: set[str] = set()
        for key, entry in _entries(name, study):
            if key in keys:
                text = f"two of its values make the same entry, {key}: give each a study of its own"
                raise SettingFault(("studies", name), text)
            keys.add(key)
            if key in entries or (key in studies and key != name):
                text = f"its entry {key} has the name of another study; rename one of them"
                raise SettingFault(("studies", name), text)
            entries[key] = entry
    return entries


def makers(studies: dict[str, Any]) -> dict[str, str]:
    """Return, by name of an entry of ``expand``, the study that it is made from."""
    return {key: name for name, study in studies.items() for key, _ in _entries(name, study)}


def _entries(name: str, study: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the entries that a study stands for, itself or its held-out sources first."""
    return [*_held_out(name, study), *_external(name, study), *_points(name, study)]


def _held_out(name: str, study: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return a study, or for a variant with a list of values a variant of each."""
    split: Any = study.get("split")
    values = split.get("held_out") if isinstance(split, dict) else None
    if not isinstance(values, list):
        return [(name, study)]
    if study.get("variant_of") is None or not values:
        raise SettingFault(
            ("studies", name, "split", "held_out"),
            "a list of values makes a variant of each; "
            "give the study variant_of and at least one value, or name one value",
        )
    if wrong := [v for v in values if isinstance(v, bool) or not isinstance(v, str | int | float)]:
        raise SettingFault(
            ("studies", name, "split", "held_out"),
            f"must be text or a number (found {wrong[0]!r}); yes, no, on, off, true and false "
            "stand in quotes where they are text",
        )
    column = split.get("column", "source")
    entries = []
    for value in values:
        title = f"{column} {value} held out"
        single = split | {"mode": "source", "held_out": str(value)}
        entries.append((f"{name}_{_slug(value)}", study | {"title": title, "split": single}))
    return entries


def _external(name: str, study: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return an entry for each external set of a study."""
    sets = study.get("external")
    entries = []
    for number, external in enumerate(sets if isinstance(sets, list) else (), start=1):
        if not isinstance(external, dict) or not isinstance(external.get("source"), dict):
            continue  # refused by the validation of ``external``
        settings = {key: value for key, value in study.items() if key not in NOT_TAKEN}
        settings["runs"] = external.get("runs") or [study.get("baseline", "serial_1cpu")]
        settings |= {"title": external.get("title") or name, "source": external["source"]}
        settings |= {"split": {"mode": "external"}, "external_of": name}
        entries.append((f"{name}_external{number}", settings))
    return entries


def _points(name: str, study: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield an entry for each point of a study's sweep that differs from the study's recipe."""
    if study.get("sweep") is None:
        return
    try:
        sweep = Sweep.model_validate(study["sweep"])
        recipe = Recipe.model_validate(study.get("recipe") or {})
    except ValidationError:
        return  # refused by the validation of ``sweep`` or ``recipe``
    inherited = {key: value for key, value in study.items() if key not in NOT_TAKEN}
    for lr, scaling in product(sweep.lr or [recipe.lr], sweep.lr_scaling or [recipe.lr_scaling]):
        changes = {"lr": lr, "lr_scaling": scaling}
        if recipe.model_copy(update=changes) == recipe:
            continue
        varied = [("lr", lr)] * bool(sweep.lr) + [("scaling", scaling)] * bool(sweep.lr_scaling)
        words = ", ".join(f"{setting} {value}" for setting, value in varied)
        own: dict[str, Any] = {"title": words, "runs": sweep.runs, "sweep_of": name}
        own["recipe"] = {**(study.get("recipe") or {}), **changes}
        own |= {"seeds": sweep.seeds} if sweep.seeds is not None else {}
        yield f"{name}_{_slug(words)}", inherited | own


def _slug(value: Any) -> str:
    return re.sub(r"[^a-z0-9]+", "_", str(value).lower()).strip("_") or "value"
