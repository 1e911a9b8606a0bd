"""Layers of settings: config.yaml, the overlay of a scale, changes, and inherited settings."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from medscale.base.errors import MedscaleError
from medscale.base.suggest import suggestion
from medscale.config.expansion import expand
from medscale.config.fault import SettingFault
from medscale.config.yaml_file import read_yaml

# Settings that `like: other` takes from the other study: its runs and their comparison. Network,
# recipe and preprocessing suit the other study's images, and come from the defaults instead.
LIKE = ("runs", "baseline", "seeds", "models", "parallel", "evaluate")
# Settings that a variant does not inherit.
OWN = ("title", "external", "convergence", "sweep")
FULL = "full"  # the scale that has no overlay


Keys = tuple[str | int, ...]  # path of a setting; numbers are places in lists


class Layer(NamedTuple):
    """Settings of one origin, such as a file, as a tree of mappings."""

    origin: str
    tree: dict[str, Any]


class Layers:
    """All settings before validation, from the lowest layer to the highest.

    Attributes:
        files: config.yaml, the overlay of the scale, and the changes.
        tree: the merged settings, with neither ``studies`` nor ``defaults``.
        studies: the settings that each study gives itself, by name.
        base: path of config.yaml.
        scale: the scale in force.
        faults: mistakes in the layers, for one message on all mistakes of the configuration.
    """

    def __init__(self, base: str | Path, changes: Iterable[Layer] = ()) -> None:
        """Read config.yaml and lay the overlay and the changes over it.

        Raises MedscaleError for a file that is absent or no tree of settings. Other mistakes, such
        as an unknown scale, are added to ``faults``.

        Args:
            base: path of config.yaml.
            changes: further layers; the last ``scale`` in them chooses the overlay.
        """
        if not Path(base).exists():  # a wheel has no files of the project
            raise MedscaleError(
                f"{base} does not exist: studies need a clone of the repository and its own "
                "environment; type `make setup` in the clone, then `source .venv/bin/activate`"
            )
        tree = read_yaml(Path(base))
        changes = [Layer(origin, copy.deepcopy(layer)) for origin, layer in changes]
        self.faults: list[SettingFault] = []
        scales = self._section("scales", tree.pop("scales", None) or {})
        scale = tree.get("scale", FULL)
        for origin, layer in changes:
            if not isinstance(layer, dict):
                raise MedscaleError(f"{origin}: no mapping of settings: {layer!r}")
            scale = layer.get("scale", scale)
        if scale not in (FULL, *scales):
            text = f"there is no scale {scale!r}; {suggestion(scale, (FULL, *scales))}"
            text += f"there are: {', '.join((FULL, *scales))}"
            self.faults.append(SettingFault(("scale",), text))
            scale = FULL  # so that the other mistakes are found too
        self.base, self.scale = base, scale
        name = Path(base).name
        changes_of_scale = self._section(f"scales.{scale}", scales.get(scale) or {})
        overlay = Layer(f"{name}, scales.{scale}", changes_of_scale)
        self.files = [Layer(name, tree), overlay, *changes]
        for _, layer in self.files:
            if "only" in layer:
                layer["only"] = names_of(layer["only"])
        self.tree: dict[str, Any] = reduce(merge, (layer.tree for layer in self.files))
        self.tree["scale"] = scale
        self._defaults = self._section("defaults", self.tree.pop("defaults", {}))
        listed = self._section("studies", self.tree.pop("studies", None) or {})
        self.studies = {
            name: study
            for name, study in listed.items()
            if study is not None and self._is_section(f"studies.{name}", study)
        }

    @property
    def names(self) -> list[str]:
        """Names of all studies, of those too that an entry stands for (``expand``)."""
        return list(self.whole()["studies"])

    def no_study(self, name: object) -> str:
        """Return the message on the name of a study that does not exist."""
        hint = suggestion(name, self.studies)
        return f"there is no study {name!r}; {hint}there are: {', '.join(self.studies)}"

    def whole(self) -> dict[str, Any]:
        """Return all settings, each study completed by its inherited settings.

        An entry that stands for several (``expand``) is replaced by them. A study that cannot be
        completed is left out, and the reason is added to ``faults``.
        """
        complete = {}
        for name in self.studies:
            try:
                complete[name] = self.study(name)
            except SettingFault as fault:
                self._add(fault)
        while True:
            try:
                return {**self.tree, "studies": expand(complete)}
            except SettingFault as fault:
                self._add(fault)
                del complete[fault.path[1]]

    def _add(self, fault: SettingFault) -> None:
        if str(fault) not in map(str, self.faults):
            self.faults.append(fault)

    def study(self, name: str) -> dict[str, Any]:
        """Return the settings of a study, completed by the inherited ones."""
        return dict(reduce(merge, (layer.tree for layer in self.of_study(name))))

    def of_study(self, name: str, chain: tuple[str, ...] = ()) -> list[Layer]:
        """Return the layers of a study; the highest, with an empty origin, are its own settings.

        ``variant_of: other`` and ``like: other`` take settings of another study
        (``is_inherited``), a variant no folds where its split has another mode. Others come from
        ``defaults`` (``takes_defaults``). Raises SettingFault if the other study is missing or
        leads back to this one.
        """
        study = {"title": str(name), **self.studies[name]}
        like, variant_of = study.pop("like", None), study.get("variant_of")
        if like is not None and variant_of is not None:
            raise SettingFault(
                ("studies", name, "like"),
                f"studies.{name} has like and variant_of; give one of them",
            )
        inherited = []
        for key, other in (("like", like), ("variant_of", variant_of)):
            if other is None:
                continue
            self._check_parent(name, key, other, chain)
            layers = (layer.tree for layer in self.of_study(other, (*chain, name)))
            parent = {
                setting: value
                for setting, value in reduce(merge, layers).items()
                if is_inherited(key, setting)
            }
            if key == "like" and isinstance(parent.get("evaluate"), dict):
                # Prevalences are those of the other study's classes.
                evaluate = parent["evaluate"].items()
                parent["evaluate"] = {k: v for k, v in evaluate if k != "prevalence"}
            if key == "variant_of" and isinstance(parent.get("split"), dict):
                parent["split"] = _fitting_split(parent["split"], study.get("split"))
            inherited.append(Layer(f"{key}: {other}", parent))
        if takes_defaults(self.studies[name]):
            inherited.insert(0, Layer("defaults", self._defaults))
        return [*inherited, Layer("", study)]

    def _check_parent(self, name: str, key: str, other: object, chain: tuple[str, ...]) -> None:
        """Raise SettingFault if the study that another inherits from does not exist or inherits it.

        Args:
            name: of the study.
            key: its setting that names the other study, such as ``like``.
            other: value of the setting.
            chain: studies that inherit from the study ``name``, the last first.
        """
        path = ("studies", name, key)
        if not isinstance(other, str) or other not in self.studies:
            hint = suggestion(other, {*self.studies} - {name})
            text = f"studies.{name}.{key}: there is no study {other!r}; {hint}"
            raise SettingFault(path, f"{text}name a study that exists, or remove this one")
        if other in (*chain, name):
            text = f"studies.{name}.{key} is {other!r}, which itself inherits from {name}; "
            raise SettingFault(path, f"{text}give one of these studies its own settings")

    def _section(self, setting: str, value: Any) -> dict[str, Any]:
        return value if self._is_section(setting, value) else {}

    def _is_section(self, setting: str, value: Any) -> bool:
        if isinstance(value, dict):
            return True
        text = f"{setting} must be a mapping of settings, not {value!r}"
        self.faults.append(SettingFault(tuple(setting.split(".", 1)), text))
        return False


def is_inherited(key: str, setting: object) -> bool:
    """Return whether a study takes a setting from the study that ``variant_of`` or ``like`` names.

    Args:
        key: ``variant_of``, which takes all settings but those of ``OWN``, or ``like``, which takes
            those of ``LIKE``.
        setting: name of the setting.
    """
    return setting not in OWN if key == "variant_of" else setting in LIKE


def takes_defaults(study: dict[str, Any]) -> bool:
    """Return whether a study takes what it lacks from ``defaults``.

    Studies like another and studies on a folder of images do, but no variants.
    """
    source = study.get("source")
    is_folder = isinstance(source, dict) and source.get("kind") == "folder"
    return study.get("variant_of") is None and (study.get("like") is not None or is_folder)


def names_of(only: Any) -> Any:
    """Return the names in a value of ``only``, which may be text such as ``skin, melanoma``.

    A value that is no text is returned as it is.
    """
    if not isinstance(only, str):
        return only
    return [name.strip() for name in only.split(",") if name.strip()]


def merge(below: Any, above: Any) -> Any:
    """Lay one tree of settings over another: mappings are merged, other values replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        lower = {key: value for key, value in below.items() if key not in _obsolete(below, above)}
        return lower | {key: merge(lower.get(key), value) for key, value in above.items()}
    return copy.deepcopy(above)


def _obsolete(below: dict[str, Any], above: dict[str, Any]) -> set[str]:
    """Return the settings of a section that settings of a higher layer make obsolete.

    They are the options of a network that another one replaces, and a number of steps, which would
    replace the number of epochs above it.
    """
    names = [tree["name"] for tree in (below, above) if "name" in tree]
    options = {"options"} if len(names) == 2 and names[0] != names[1] else set()
    return options | ({"steps"} if "epochs" in above else set())


def has(tree: Any, path: Keys) -> bool:
    """Return whether a tree of settings has a value at a path."""
    for key in path:
        entries = dict(enumerate(tree)) if isinstance(tree, list) else tree
        if not isinstance(entries, dict) or key not in entries:
            return False
        tree = entries[key]
    return True


def _fitting_split(inherited: dict[str, Any], own: Any) -> dict[str, Any]:
    """Return the split of a study for its variant: without folds, if its mode has none."""
    modes = {"mode", "held_out"} & own.keys() if isinstance(own, dict) else set()
    if inherited.get("folds") is None or not modes or own.get("mode") == "grouped":
        return inherited
    of_folds = ("folds", "train", "val", "test")
    return {key: value for key, value in inherited.items() if key not in of_folds}
