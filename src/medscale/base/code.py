"""Digests of code, which change when a script or a module that it imports changes its behaviour.

A digest covers the parsed code without comments, docstrings, descriptions of settings and
formatting, so an edit of those reruns nothing. Files are parsed once per content, and digests are
computed once per state of the checkout; the results are kept in the folder of the byte code.
"""

from __future__ import annotations

import ast
import atexit
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.util import cache_from_source
from pathlib import Path
from typing import NamedTuple

from medscale.base.errors import MedscaleError
from medscale.base.files import digest, has_hidden_part, sha256

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parent.parent
SCRIPTS = ROOT / "scripts"
CACHE = Path(cache_from_source(__file__)).with_name("code-digests.json")
CACHE_LIMIT = 2000  # parsed files; above it the cache is emptied (the package has about 400 files)
MODULE_NAME = re.compile(r"medscale(\.\w+)+")
# Arguments that only describe: titles and descriptions of settings.
DESCRIPTIONS = {"Field": ("title", "description")}
# Arguments that change no result: appearance of a strategy in figures, parts of the cost model.
WITHOUT_EFFECT = {"Strategy": ("title", "looks", "costs")}
# A registry is a list of modules. A run depends on the listed modules that it uses, not on all.
REGISTRY, REGISTRIES = "MODULES", ("registry.py", "own.py")


class ParsedFile(NamedTuple):
    """The digests and imports of one file of code."""

    code: str  # SHA-256 over the syntax tree
    core: str  # the same without lists of registries and arguments that change no result
    # modules of this package that it imports, or starts as a process (``python -m``): ``module``,
    # or ``module:name`` for a name that is imported from a module or package
    imports: list[str]


def shown_path(path: str | Path) -> str:
    """Return a path relative to the project's root if it lies there, and otherwise unchanged."""
    full = Path(path).resolve()
    return str(full.relative_to(ROOT)) if full.is_relative_to(ROOT) else str(path)


@cache
def code_digest(
    *files: str | Path, core: bool = False, unused: frozenset[str] = frozenset()
) -> str:
    """Return the SHA-256 over a script and all modules of this package that it imports.

    Snakemake tracks no imported modules. Each stage has this digest as a param, so that a change
    of code reruns the stages that use the code, and no others.

    Args:
        files: the script, and modules that it imports by a computed name.
        core: leave out code that changes no result: lists of registries and ``WITHOUT_EFFECT``.
        unused: names of modules that a registry lists and this stage does not use.
    """

    def compute() -> str:
        return digest(module_digests(*files, core=core, unused=unused))

    watched = all(Path(f).is_relative_to(PACKAGE) or Path(f).parent == SCRIPTS for f in files)
    parts = [*map(str, files), f"{core=}", *sorted(unused)]
    return from_cache("code", parts, compute) if watched else compute()


def from_cache(kind: str, parts: list[str], compute: Callable[[], str]) -> str:
    """Return the result of ``compute``, from the cache of an earlier process if possible.

    A change of size or time of any script, module or template empties the cache.

    Args:
        kind: kind of the result.
        parts: inputs of the result in addition to the code.
        compute: function that returns a digest of scripts, modules and templates.
    """
    digests, key = _cache().of_state(), digest([kind, *parts])
    if key not in digests:
        digests[key] = compute()
    return digests[key]


@cache
def _state() -> str:
    """Return a digest of size and times of all scripts, modules and templates."""
    files = [file for top in (SCRIPTS, PACKAGE) for file in sources(top, "**/*.py", "**/*.j2")]
    states = ((str(file), file.stat()) for file in files)
    return digest([(file, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for file, s in states])


def sources(folder: Path, *patterns: str) -> list[Path]:
    """Return the files of code in a folder that match patterns, sorted.

    Hidden files and files in hidden folders are no code: editors and systems put them beside a
    module. Emacs' lock of an unsaved file is a link to nothing.
    """
    files = (file for pattern in patterns for file in folder.glob(pattern))
    return sorted(file for file in files if not has_hidden_part(file.relative_to(folder)))


def module_digests(
    *files: str | Path, core: bool = False, unused: frozenset[str] = frozenset()
) -> dict[str, str]:
    """Return the digest of each file by its path, and of each imported module by its name."""
    digests: dict[str, str] = {}
    for file in map(Path, files):
        name = str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else file.name
        for module, path in {name: file, **modules(file, unused)}.items():
            digests[module] = module_digest(path, core)
    return dict(sorted(digests.items()))


def module_digest(path: str | Path, core: bool = False) -> str:
    """Return the SHA-256 over the code of one file and its template, without its imports.

    The template of ``card.py`` is ``card.md.j2`` in the same folder. ``core``: see ``code_digest``.
    """
    parsed, template = _parse_file(Path(path)), Path(path).with_suffix(".md.j2")
    code = parsed.core if core else parsed.code
    return digest([code, sha256(template)]) if template.is_file() else code


def tree_digest(tree: ast.Module, core: bool = False) -> str:
    """Return the SHA-256 over parsed code; ``core``: see ``code_digest``."""
    return hashlib.sha256("".join(_canonical(tree, core)).encode()).hexdigest()


@cache
def package_digest() -> str:
    """Return the SHA-256 over the bytes of all modules and templates, which names the code."""
    files = sources(PACKAGE, "**/*.py", "**/*.j2")
    return digest([(str(file.relative_to(PACKAGE)), sha256(file)) for file in files])


def modules(script: Path, unused: frozenset[str] = frozenset()) -> dict[str, Path]:
    """Return the file of each module of this package that a script imports, directly or not.

    The modules are sorted by name. The import of ``medscale.a.b`` also runs the ``__init__`` of
    ``medscale.a``.

    Args:
        script: file of the script.
        unused: names of modules that a registry lists and the script does not use.

    Raises:
        MedscaleError: when a file has a syntax error or a relative import.
    """
    paths: dict[str, Path] = {}
    names_to_follow = list(_parse_file(script).imports)
    while names_to_follow:
        name, file = _module(names_to_follow.pop())
        if file is not None and name not in paths:
            paths[name] = file
            left_out = unused if file.name in REGISTRIES else frozenset()
            names_to_follow += [*_packages(name), *({*_parse_file(file).imports} - left_out)]
    return dict(sorted(paths.items()))


def _packages(name: str) -> Iterator[str]:
    """Yield the packages that contain a module, without ``medscale``, whose file only exports."""
    parts = name.split(".")
    yield from (".".join(parts[:end]) for end in range(2, len(parts)))


@cache
def _module(name: str) -> tuple[str, Path | None]:
    """Return the module that ``module`` or ``module:name`` stands for, and its file if any."""
    module, _, attribute = name.partition(":")
    for candidate in ([f"{module}.{attribute}"] if attribute else []) + [module]:
        path = PACKAGE.joinpath(*candidate.split(".")[1:])
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return candidate, file
    return module, None


def _parse_file(path: Path) -> ParsedFile:
    state = path.stat()
    return _parse_version(path, state.st_mtime_ns, state.st_size)


@cache
def _parse_version(path: Path, _time: int, _size: int) -> ParsedFile:
    content = path.read_bytes()
    key, files = hashlib.sha256(content).hexdigest(), _cache().files
    if key not in files:
        try:
            files[key] = _parse(ast.parse(content))
        except (SyntaxError, MedscaleError) as error:
            raise MedscaleError(f"{path}: {error}") from None
    return ParsedFile(*files[key])


def _parse(tree: ast.Module) -> ParsedFile:
    names = sorted({name for node in _nodes(tree) for name in _names(node)})
    return ParsedFile(tree_digest(tree), tree_digest(tree, core=True), names)


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a syntax tree but those of descriptions and of ``if TYPE_CHECKING``."""
    yield node
    for _, value in _fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _nodes(child)


def _names(node: ast.AST) -> Iterable[str]:
    """Return modules of this package that a node imports, or names in a string to start them."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            raise MedscaleError(
                f"line {node.lineno}: digests of code cannot follow a relative import; "
                "write the module's full name"
            )
        names = [f"{node.module}:{alias.name}" for alias in node.names]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        names = [node.value] if MODULE_NAME.fullmatch(node.value) else []
    return (name for name in names if re.match(r"medscale\b", name))


def _canonical(node: object, core: bool) -> Iterator[str]:
    """Yield a syntax tree as text that is equal in all versions of Python.

    The text of ``ast.dump`` differs: newer versions have further fields, which are empty for older
    code.
    """
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name, value in _fields(node):
            if core and isinstance(value, list):
                value = [item for item in value if not _is_without_effect(item, node)]
            if value is not None and value != []:
                yield f" {name}="
                yield from _canonical(value, core)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            yield from _canonical(item, core)
            yield ","
        yield "]"
    else:
        yield repr(node)


def _fields(node: ast.AST) -> Iterator[tuple[str, object]]:
    """Yield the fields of a node without descriptions and code for type checkers."""
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            value = [item for item in value if not _is_description(item, node)]
        if isinstance(node, ast.JoinedStr):  # Python 3.12 adds an empty string to some f-strings
            value = [item for item in node.values if getattr(item, "value", None) != ""]
        if name == "body" and isinstance(node, ast.If) and _is_for_type_checkers(node.test):
            value = []
        yield name, value


def _is_without_effect(item: object, parent: ast.AST) -> bool:
    """Return whether a part of a node is a registry's list or in ``WITHOUT_EFFECT``."""
    if isinstance(item, ast.Assign | ast.AnnAssign):
        target = item.targets[0] if isinstance(item, ast.Assign) else item.target
        return getattr(target, "id", None) == REGISTRY
    return _is_argument(item, parent, WITHOUT_EFFECT)


def _is_description(item: object, parent: ast.AST) -> bool:
    """Return whether a part of a node is a docstring or the description of a setting."""
    is_docstring = (
        isinstance(item, ast.Expr)
        and isinstance(item.value, ast.Constant)
        and isinstance(item.value.value, str)
    )
    return is_docstring or _is_argument(item, parent, DESCRIPTIONS)


def _is_argument(item: object, parent: ast.AST, names: Mapping[str, tuple[str, ...]]) -> bool:
    """Return whether a part of a node is a keyword argument that ``names`` lists by function."""
    return (
        isinstance(item, ast.keyword)
        and isinstance(parent, ast.Call)
        and item.arg in names.get(getattr(parent.func, "id", ""), ())
    )


def _is_for_type_checkers(test: ast.expr) -> bool:
    return getattr(test, "id", getattr(test, "attr", None)) == "TYPE_CHECKING"


class Cache:
    """Results of earlier processes, saved when the process ends if there are new ones.

    Attributes:
        files: parsed files by the SHA-256 of their content.
        digests: results of ``from_cache`` for the checkout in the state ``state``.
        state: digest of sizes and times of the checkout's files.
    """

    def __init__(self) -> None:
        self.files: dict[str, ParsedFile] = {}
        self.digests: dict[str, str] = {}
        self.state = ""
        self._scheme = sha256(__file__)  # another version of this module may parse otherwise
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            stored = json.loads(CACHE.read_text(encoding="utf-8"))
            if stored["scheme"] == self._scheme:
                files = {key: ParsedFile(*value) for key, value in stored["files"].items()}
                self.digests, self.state = dict(stored["digests"]), str(stored["state"])
                self.files = files if len(files) <= CACHE_LIMIT else {}
        self._before = self._size()
        atexit.register(self._save)

    def of_state(self) -> dict[str, str]:
        """Return the digests of the present state of the checkout."""
        if self.state != _state():
            self.digests, self.state = {}, _state()
        return self.digests

    def _size(self) -> tuple[int, int, str]:
        return len(self.files), len(self.digests), self.state

    def _save(self) -> None:
        """Write the cache for later processes; without write permission there is no cache."""
        if self._size() == self._before:
            return
        content = {"scheme": self._scheme, "files": self.files}
        content |= {"state": self.state, "digests": self.digests}
        temporary = CACHE.with_name(f".{CACHE.name}.{os.getpid()}")
        with suppress(OSError):
            CACHE.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(CACHE)


@cache
def _cache() -> Cache:
    return Cache()
