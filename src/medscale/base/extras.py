"""Optional packages: whether they are installed, and the command that installs them."""

from __future__ import annotations

from importlib.util import find_spec

from medscale.base.errors import MedscaleError


def require(purpose: str, extra: str, *packages: str, note: str = "") -> None:
    """Fail where a package of an extra is not installed.

    Raises MedscaleError with the packages and the command that installs them.

    Args:
        purpose: the use of the packages, in the plural, as subject of the sentence.
        extra: its name in pyproject.toml.
        packages: names under which Python imports them.
        note: a further part of the sentence, such as the licence.
    """
    if absent := [name for name in packages if find_spec(name) is None]:
        verb = "is" if len(absent) == 1 else "are"
        raise MedscaleError(
            f"{purpose} need {', '.join(absent)}, which {verb} not installed: "
            f"pip install 'medscale[{extra}]'{note}"
        )
