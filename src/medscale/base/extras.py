"""Optional packages: whether they are installed, and the command that installs them."""

from __future__ import annotations

from importlib.util import find_spec

from medscale.base.errors import MedscaleError


def require(purpose: str, extra: str, *packages: str, note: str = "") -> None:
    """Check that the packages of an extra are installed.

    Args:
        purpose: use of the packages, as a plural subject of the message.
        extra: name of the extra in pyproject.toml.
        packages: names by which Python imports the packages.
        note: end of the message, such as the licence.

    Raises:
        MedscaleError: when a package is missing; the message has the command that installs it.
    """
    if absent := [name for name in packages if find_spec(name) is None]:
        verb = "is" if len(absent) == 1 else "are"
        raise MedscaleError(
            f"{purpose} need {', '.join(absent)}, which {verb} not installed: "
            f"pip install 'medscale[{extra}]'{note}"
        )
