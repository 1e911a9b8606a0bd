"""The error on one setting, which carries the setting's path."""

from __future__ import annotations

from medscale.base.errors import MedscaleError


class SettingFault(MedscaleError):
    """A setting, by its path, that cannot be used."""

    def __init__(self, path: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.path = path
