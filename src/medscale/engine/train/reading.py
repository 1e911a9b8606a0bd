"""Read DCP's checkpoints as data: no code that a checkpoint may hold is run."""

from __future__ import annotations

import io
import pickle
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner, FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import ReadItem

from medscale.base.errors import MedscaleError

METADATA = ".metadata"  # DCP's table of contents, a pickle
# Everything that DCP's table of contents refers to, by the module that pickle names.
_CLASSES = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
    "pathlib": {"PosixPath"},
}


def _member(owner: Any, name: str) -> Any:
    """Return a member of an enumeration, which Python before 3.11.4 pickles as a call of getattr.

    Debian 12 has such a Python. Any other use of getattr is refused.
    """
    if isinstance(owner, type) and issubclass(owner, Enum) and name in owner.__members__:
        return owner[name]
    raise MedscaleError(f"{METADATA} names {name} of {owner!r}, which is no part of a checkpoint")


class _Unpickler(pickle.Unpickler):
    """Load DCP's own classes and PyTorch's data types, and refuse all other names."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "pathlib._local":  # Python 3.13's name, which no other version knows
            module = "pathlib"
        if name in _CLASSES.get(module, ()):
            return super().find_class(module, name)
        if (module, name) == ("builtins", "getattr"):
            return _member
        if module == "torch" and isinstance(value := getattr(torch, name, None), torch.dtype):
            return value
        raise MedscaleError(f"{METADATA} names {module}.{name}, which is no part of a checkpoint")


class Reader(FileSystemReader):
    """DCP's reader of a folder, with an unpickler that allows DCP's classes alone."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the table of contents; see ``read_metadata`` of this module."""
        metadata = read_metadata(Path(self.path))
        assert metadata.storage_meta is not None
        metadata.storage_meta.load_id = self.load_id
        return metadata


class Planner(DefaultLoadPlanner):
    """DCP's planner, which reads tensors alone: for another value DCP would run code in it."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Refuse a value that is no tensor; raises MedscaleError."""
        raise MedscaleError(f"{read_item.dest_index.fqn} is no tensor")


def read_metadata(folder: Path) -> Metadata:
    """Return the table of contents of the checkpoint in ``folder``.

    Raises MedscaleError when it is damaged, holds other objects than DCP's, or names files that are
    not in the folder.
    """
    try:
        with open(folder / METADATA, "rb") as file:
            metadata = _Unpickler(file).load()
        files = {info.relative_path for info in metadata.storage_data.values()}
        complete = isinstance(metadata, Metadata) and metadata.storage_meta is not None
    except MedscaleError:
        raise
    except Exception as error:  # a damaged pickle raises almost any exception
        raise MedscaleError(f"{METADATA} cannot be read ({type(error).__name__})") from None
    present = {file.name for file in folder.iterdir()}
    if not complete or not files <= present:
        raise MedscaleError(f"{METADATA} does not describe the files of {folder}")
    return metadata
