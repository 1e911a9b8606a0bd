"""Notes on names of files and folders that may be patients, of images without known patients."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from medscale.data.inventory import SPLIT_OF_FOLDER
from medscale.data.patients import plain_name

# The part of a file's name up to its first number, and a separator.
NAME_PREFIX = re.compile(r"(.*?\d+[_\-. ])")
# The letters of a file's name up to its first number, such as a person's name.
NAME_START = re.compile(r"(\D*[^\W\d_])[\W_]*\d")
# A number after a word for patients that is not the first number of a file's name.
LATER_NUMBER = re.compile(
    r".*\d.*?[\W_]((?:pat(?:ient)?|subj(?:ect)?|sub|person|pt|pid|case)[_\- ]?)(\d+)", re.IGNORECASE
)
FIRST_WORDS = re.compile(r"(.+)[_\- ]")  # a file's name without its last word
FEWEST_PREFIXES = 2  # number of repeated prefixes from which a note asks about patients
FEWEST_FOLDERS = 4  # fewer are rather views, hospitals, or train, val and test


def note_on_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a note on common prefixes of file names, or on folders, which may be patients.

    Args:
        rows: path and label of images without known patients.
    """
    labels = {str(row["path"]): str(row["label"]) for row in rows}
    notes = [*_note_on_prefixes(labels), *_note_on_folders(labels), *_note_on_words(labels)]
    return [max(notes, key=lambda note: note[0])[1]] if notes else []


def _note_on_folders(labels: Mapping[str, str]) -> list[tuple[int, str]]:
    """Return the number of folders that may be patients, and a note; empty without such folders.

    Levels are the folders right above the images, those above these, and the first of each path. A
    level with fewer names than a level above it is passed over, such as ``study1`` below each
    patient of CheXpert. ``labels``: class of each image by its path.
    """
    folders = [(PurePosixPath(path).parts[:-1], label) for path, label in labels.items()]
    levels: list[tuple[Counter[str], str]] = []  # names with their images, and the expression
    for place, fewest, expression in (
        (-1, 1, "([^/]+)/[^/]+$"),
        (-2, 3, "([^/]+)/[^/]+/[^/]+$"),
        (0, 1, "^([^/]+)/"),
    ):
        names = _without_classes(
            (parts[place], label) for parts, label in folders if len(parts) >= fewest
        )
        if len(names) >= FEWEST_FOLDERS:
            levels = [level for level in levels if len(level[0]) >= len(names)]
            levels.append((names, expression))
    if not levels:
        return []
    (names, expression), *above = levels
    note = (
        f"{names.total():,} images are in {len(names):,} folders such as {min(names)}: are these "
        f"patients? Then set source.patient: '{expression}'"
    )
    if above and len(above[0][0]) < len(names):
        upper, expression = above[0]
        note += (
            f"; or are the {len(upper):,} folders above, such as {min(upper)}? Then '{expression}'"
        )
    return [(len(names), note)]


def _note_on_prefixes(labels: Mapping[str, str]) -> list[tuple[int, str]]:
    """Return the number of repeated parts of file names, and a note on them; empty without any.

    These are names, numbers, or words at the start. ``labels``: class of each image by its path.
    """
    names, numbers = _repeated(NAME_START, labels), _repeated(NAME_PREFIX, labels)
    without_number = {
        path: label
        for path, label in labels.items()
        if not re.search(r"\d", PurePosixPath(path).stem)
    }
    words = _repeated(FIRST_WORDS, without_number)
    if len(names) >= FEWEST_FOLDERS:
        repeated, expression = names, r"^(\D+)\d"
    elif len(numbers) >= FEWEST_PREFIXES:
        repeated, expression = numbers, _expression(numbers)
    elif len(words) >= FEWEST_FOLDERS:
        repeated, expression = words, r"^(.+)[_\- ]"
    else:
        return []
    example = max(repeated, key=lambda prefix: (repeated[prefix], prefix))
    note = (
        f"{sum(repeated.values()):,} names repeat {len(repeated):,} prefixes such as {example}: "
        f"are these patients? Then set source.patient: '{expression}'"
    )
    return [(len(repeated), note)]


def _note_on_words(labels: Mapping[str, str]) -> list[tuple[int, str]]:
    """Return the weight of a note on numbers after a word for patients, and the note.

    Such a word says more than any prefix or folder, so its note counts as one on all images. Empty
    if fewer than half of the names have one. ``labels``: class of each image by its path.
    """
    matches = [LATER_NUMBER.match(PurePosixPath(path).stem) for path in labels]
    numbers = Counter((match[1], match[2]) for match in matches if match)
    words = Counter(word for word, _ in numbers.elements())
    if not words or words.total() < len(labels) / 2 or max(numbers.values()) < 2:
        return []
    word, _ = words.most_common(1)[0]
    example = word + min(number for other, number in numbers if other == word)
    note = (
        f"{words[word]:,} names contain a number such as {example}: are these patients? Then set "
        f"source.patient: '{_escape(word)}(\\d+)'"
    )
    return [(len(labels), note)]


def _repeated(prefix: re.Pattern[str], labels: Mapping[str, str]) -> dict[str, int]:
    """Count the files by the prefix of their names, for repeated prefixes that name no class.

    Prefixes that are the same for all files of each folder say no more than the folder, such as
    ``Tr-gl_0010`` in ``Training/glioma``. ``labels``: class of each image by its path.
    """
    folders, starts = defaultdict(set), list[tuple[str, str]]()
    for path, label in labels.items():
        match = prefix.match(PurePosixPath(path).stem)
        folders[PurePosixPath(path).parent].add(match and match[1])
        starts += [(match[1], label)] if match else []
    if all(len(texts) == 1 for texts in folders.values()):
        return {}
    return {text: count for text, count in _without_classes(starts).items() if count > 1}


def _without_classes(names: Iterable[tuple[str, str]]) -> Counter[str]:
    """Count names that do not name a split, a class, or both, such as ``train_c`` of cancer.

    ``names``: a name of an image and the image's class.
    """
    counts, labels = Counter[str](), defaultdict(set)
    for name, label in names:
        counts[name] += 1
        labels[name].add(plain_name(label))
    return Counter(
        {
            name: count
            for name, count in counts.items()
            if not all(_is_class(plain_name(name), label) for label in labels[name])
        }
    )


def _is_class(name: str, label: str) -> bool:
    """Return whether a plain name is a split, the beginning of a class, or both in either order."""
    rests = [name]
    for split in SPLIT_OF_FOLDER:
        rests += [name.removeprefix(split), name.removesuffix(split)]
    return bool(name) and any(label.startswith(rest) for rest in rests)


def _expression(prefixes: Iterable[str]) -> str:
    """Return a regular expression whose group is the number of a patient in a file name.

    Args:
        prefixes: beginnings of file names that end in a number and a separator.
    """
    starts = {(prefix[:-1].rstrip("0123456789"), prefix[-1]) for prefix in prefixes}
    if len(starts) > 1:
        separators = "".join(sorted({re.escape(separator) for _, separator in starts}))
        return rf"^(.*?\d+)[{separators}]"
    ((start, separator),) = starts
    return rf"^{_escape(start)}(\d+){_escape(separator)}"


def _escape(text: str) -> str:
    """Escape the operators of regular expressions in a text; unlike re.escape, keep spaces."""
    return re.sub(r"[.^$*+?{}\[\]\\|()]", r"\\\g<0>", text)
