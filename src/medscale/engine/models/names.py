"""Names of all networks: this package's own and timm's, readable without PyTorch."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from medscale.base.errors import MedscaleError
from medscale.engine.models.own import MODULES
from medscale.engine.plan import is_detector

# timm registers a network by a decorator of its function, or as an old name of another network.
_REGISTERED = re.compile(r"^@register_model\b[^\n]*\n(?:@[^\n]*\n)*def (\w+)", re.MULTILINE)
_RENAMED = re.compile(r"register_model_deprecations\(__name__, \{(.*?)\}\)", re.DOTALL)
_KEY = re.compile(r"['\"](\w+)['\"]\s*:")
CLOSE = 3  # names of a suggestion


@cache
def timm_names() -> frozenset[str]:
    """Return the names of timm's networks, read from its source files in a tenth of a second.

    Importing timm imports PyTorch, which takes seconds.
    """
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        return frozenset()
    texts = [
        file.read_text(encoding="utf-8")
        for file in (Path(spec.origin).parent / "models").rglob("*.py")
    ]
    renamed = (keys for text in texts for keys in _RENAMED.findall(text))
    return frozenset(
        [*(name for text in texts for name in _REGISTERED.findall(text))]
        + [name for keys in renamed for name in _KEY.findall(keys)]
    )


def check_name(name: str) -> None:
    """Fail for a network that neither this package nor timm has.

    Raises MedscaleError with the names that come closest. A name may end with the tag of timm's
    weights, as in ``resnet50.a1_in1k``.
    """
    if name in MODULES or name.partition(".")[0] in timm_names():
        return
    close = get_close_matches(name, sorted({*MODULES, *timm_names()}), CLOSE)
    hint = (
        f"; did you mean {' or '.join(map(repr, close))}?"
        if close
        else f"; there are {', '.join(MODULES)} and the models of timm"
    )
    raise MedscaleError(f"there is no model {name!r}{hint}")


def check_model(name: str | None) -> None:
    """Refuse the name of a network that no registry has.

    For a detector nothing is checked here: the plan knows whether the study has detection, and
    ``medscale check`` and the run itself whether ultralytics is installed, which may differ between
    this machine and the jobs' machines. Raises MedscaleError with names that are close.
    """
    if name is not None and not is_detector(name):
        check_name(name)
