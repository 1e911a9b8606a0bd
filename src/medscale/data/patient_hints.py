"""Notes on names of files and folders that may be patients, of images without known patients."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from string import ascii_lowercase
from typing import Any

from medscale.data.inventory import SPLIT_OF_FOLDER
from medscale.data.patients import plain_name

# The letters of a file's name up to its first number, such as a person's name.
NAME_START = re.compile(r"(\D*[^\W\d_])[\W_]*\d")
# A number after a word for patients that is not the first number of a file's name, or that no
# separator follows.
_WORD = r"((?:pat(?:ient)?|subj(?:ect)?|sub|person|pt|pid|case)[_\- ]?)(\d+)"
WORD_NUMBER = re.compile(rf".*\d.*?[\W_]{_WORD}|{_WORD}[a-z]", re.IGNORECASE)
# Patients in the file names of published datasets, whose first number is that of a site, an edition
# or a year: ADNI, OASIS, TCGA, BraTS and BreakHis; and children's chest X-rays with two kinds of
# names.
PUBLISHED = (
    r"(\d{3}_S_\d{4,5})",
    r"(OAS\d_?\d{4,5})",
    r"(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})",
    r"((?i:BraTS)[^_]*_[A-Za-z]+_\d+|(?i:BraTS)-[A-Za-z]+-\d+)",
    r"SOB_[BM]_[A-Z]+[-_](\d+-\d+[A-Z]*)",
    r"(person\d+|IM-\d+)",
)
_SIDE = "(?:[LR]|[Ll]eft|[Rr]ight|LEFT|RIGHT|O[DS])"
SIDES = (rf"^(.*?\d){_SIDE}\.", rf"^{_SIDE}[_\- ]?(\d+)\.")  # of pairs such as 12L and 12R
# A letter after the number of a patient's images, as in 12a, 12b and 12c.
LETTERED = re.compile(r"(.*\d)([A-Za-z])")
# Images of MIAS: 2n - 1 and 2n are the breasts of one patient, which no expression can say.
MIAS = re.compile(r"mdb(\d{3})[a-z]*", re.IGNORECASE)
SIDE_FOLDER = re.compile(rf"(?:^|.*[\W_]){_SIDE}(?:[\W_].*)?")
# The beginning of a name that is a date, a month or a year, with the separator after it.
DATE = re.compile(
    r"\D*(?:19[89]|20[0-3])\d"
    r"(?:(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])|[-_.](?:0[1-9]|1[0-2])(?:[-_.](?:[0-2]\d|3[01]))?)?"
    r"[_\-. ]"
)
ALMOST_ALL = 0.9  # share of the names that have the form of one published dataset
ENDING_NUMBER = re.compile(r".*\d.*?[_\-. ](\d+)")
MOST_NUMBERS = 8  # a patient's name is sought in at most so many first numbers of a file's name
FIRST_WORDS = re.compile(r"(.+)[_\- ]")  # a file's name without its last word
FEWEST_PREFIXES = 2  # number of repeated prefixes from which a note asks about patients
FEWEST_FOLDERS = 4  # fewer are rather views, hospitals, or train, val and test


def note_on_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a note on common prefixes of file names, or on folders, which may be patients.

    Args:
        rows: path and label of images without known patients.
    """
    labels = {str(row["path"]): str(row["label"]) for row in rows}
    notes = [
        *_note_on_published_names(labels),
        *_note_on_mias(labels),
        *_note_on_words(labels),
        *_note_on_sides(labels),
        *_note_on_letters(labels),
        *_note_on_prefixes(labels),
        *_note_on_folders(labels),
    ]
    return [max(notes, key=lambda note: note[0])[1]] if notes else []


def _note_on_folders(labels: Mapping[str, str]) -> list[tuple[int, str]]:
    """Return the number of folders that may be patients, and a note; empty without such folders.

    Levels are the folders right above the images, those above these and so on, and the first of
    each path. A level with fewer names than a level above it is passed over, such as ``study1``
    below each patient of CheXpert. ``labels``: class of each image by its path.
    """
    folders = [(PurePosixPath(path).parts[:-1], label) for path, label in labels.items()]
    levels: list[tuple[Counter[str], str]] = []  # names with their images, and the expression
    depth = max((len(parts) for parts, _ in folders), default=0)
    for place, fewest, expression in (
        (-1, 1, "([^/]+)/[^/]+$"),
        *((-up, up + 1, "([^/]+)" + "/[^/]+" * up + "$") for up in range(2, depth)),
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
    names, (count, numbers) = _repeated(NAME_START, labels), _repeated_numbers(labels)
    without_number = {
        path: label
        for path, label in labels.items()
        if not re.search(r"\d", PurePosixPath(path).stem)
    }
    words = _repeated(FIRST_WORDS, without_number)
    if len(names) >= FEWEST_FOLDERS:
        repeated, expression = names, r"^(\D+)\d"
    elif len(numbers) >= FEWEST_PREFIXES:
        repeated, expression = numbers, _expression(numbers, count)
    elif len(words) >= FEWEST_FOLDERS:
        repeated, expression = words, r"^(.+)[_\- ]"
    else:
        return []
    example = max(repeated, key=lambda prefix: (repeated[prefix], prefix))
    note = (
        f"{sum(repeated.values()):,} names repeat {len(repeated):,} prefixes such as {example}: "
        f"are these patients? Then set source.patient: '{expression}'"
    )
    if repeated is numbers and len(numbers) < FEWEST_FOLDERS:
        note += _ending_numbers(labels)
    return [(len(repeated), note)]


def _ending_numbers(labels: Mapping[str, str]) -> str:
    """Return the end of a note on few prefixes: numbers at the end of names may be patients.

    ``labels``: class of each image by its path.
    """
    names = [PurePosixPath(path).stem for path in labels]
    numbers = Counter(match[1] for name in names if (match := ENDING_NUMBER.fullmatch(name)))
    repeated = [number for number, count in numbers.items() if count > 1]
    if len(repeated) < FEWEST_FOLDERS:
        return ""
    return (
        f"; or are the {len(repeated):,} numbers at the end, such as {max(repeated)}? Then "
        r"'(\d+)\.[^.]+$'"
    )


def _repeated_numbers(labels: Mapping[str, str]) -> tuple[int, dict[str, int]]:
    """Find beginnings of file names, up to one of their numbers, that several files share.

    The first number may be that of a site, an edition or a date. The beginning is made longer, to
    the next number, until at least ``FEWEST_FOLDERS`` beginnings are shared. If so many are never
    shared, it ends at the first number. If the files of each folder have one beginning, and at
    least ``FEWEST_FOLDERS`` differ, the folders say as much, and none is returned.

    Args:
        labels: class of each image by its path.

    Returns:
        How many numbers a beginning has, and the number of files by shared beginning.
    """
    first: tuple[int, dict[str, int]] = (1, {})
    for count in range(1, MOST_NUMBERS + 1):
        pattern = re.compile(rf"((?:.*?\d+[_\-. ]){{{count}}})")
        of_folders = _prefixes_of_folders(pattern, labels)
        if of_folders is not None and len(of_folders) >= FEWEST_FOLDERS:
            return count, {}
        repeated = _repeated(pattern, labels)
        if repeated and all(map(DATE.fullmatch, repeated)):
            continue
        if len(repeated) >= FEWEST_FOLDERS:
            return count, repeated
        first = first if count > 1 else (count, repeated)
    return first


def _note_on_published_names(labels: Mapping[str, str]) -> list[tuple[int, str]]:
    """Return the weight of a note on patients' names as in published datasets, and the note.

    Almost all names must have the form of one dataset, and some must share a patient. The note
    counts as one on all images. ``labels``: class of each image by its path.
    """
    names = [PurePosixPath(path).name for path in labels]
    for expression in PUBLISHED:
        counts = Counter(match[1] for name in names if (match := re.search(expression, name)))
        if counts and counts.total() >= ALMOST_ALL * len(names) and max(counts.values()) > 1:
            note = (
                f"{counts.total():,} names contain {len(counts):,} numbers such as {min(counts)}: "
                f"are these patients? Then set source.patient: '{expression}'"
            )
            return [(len(labels), note)]
    return []


def _note_on_mias(labels: Mapping[str, str]) -> list[tuple[int, str]]:
    """Return the weight of a note on pairs of images of MIAS, and the note.

    Almost all names must have the form of its names, and some must be pairs. ``labels``: class of
    each image by its path.
    """
    matches = [MIAS.fullmatch(PurePosixPath(path).stem) for path in labels]
    numbers = {int(match[1]) for match in matches if match}
    pairs = [number for number in numbers if number % 2 and number + 1 in numbers]
    if not pairs or sum(map(bool, matches)) < ALMOST_ALL * len(labels):
        return []
    first = min(pairs)
    note = (
        f"the names are those of MIAS, where mdb{first:03d} and mdb{first + 1:03d} are the left "
        f"and the right breast of one patient, and so on: if these are {len(pairs):,} such pairs, "
        "give the patients in a table, by a column patient next to path (index.csv)"
    )
    return [(len(labels), note)]


def _note_on_letters(labels: Mapping[str, str]) -> list[tuple[int, str]]:
    """Return a note on names of files that differ only by a letter after a number, and its weight.

    The letters of a number begin with a and leave none out, as in 12a, 12b and 12c, which digests
    and sides (12L, 12R) do not. The weight is the number of such series. Empty if fewer than half
    of the images have such a name, or if each letter is that of a class.

    ``labels``: class of each image by its path.
    """
    names: defaultdict[str, dict[str, str]] = defaultdict(dict)  # by letter, by what precedes it
    classes: defaultdict[str, set[str]] = defaultdict(set)
    for path, label in labels.items():
        name = PurePosixPath(path)
        if match := LETTERED.fullmatch(name.stem):
            names[f"{name.parent}/{match[1]}"][match[2].lower()] = name.stem
            classes[match[2].lower()].add(label)
    series = [
        [by_letter[letter] for letter in sorted(by_letter)]
        for by_letter in names.values()
        if len(by_letter) > 1 and "".join(sorted(by_letter)) == ascii_lowercase[: len(by_letter)]
    ]
    images = sum(map(len, series))
    are_classes = all(len(endings) == 1 for endings in classes.values())
    if len(series) < FEWEST_FOLDERS or images < len(labels) / 2 or are_classes:
        return []
    note = (
        f"{images:,} images have {len(series):,} names that differ by a letter alone, such as "
        f"{min(series)[0]} and {min(series)[1]}: are these images of one patient? Then set "
        r"source.patient: '^(.*?\d+)[A-Za-z]?\.[^.]+$'"
    )
    return [(len(series), note)]


def _note_on_sides(labels: Mapping[str, str]) -> list[tuple[int, str]]:
    """Return the number of names that differ by a side (left, right) alone, and a note.

    The side is in the file's name or in that of a folder. Empty if fewer than half of the images
    have such a name. ``labels``: class of each image by its path.
    """
    paths = [PurePosixPath(path) for path in labels]
    names: list[tuple[str, list[str]]] = [
        (side, [match[1] for path in paths if (match := re.search(side, path.name))])
        for side in SIDES
    ]
    in_folders = [path for path in paths if any(map(SIDE_FOLDER.fullmatch, path.parts[:-1]))]
    names.append((r"^(.+)\.", [path.stem for path in in_folders]))
    for expression, keys in names:
        repeated = {key: count for key, count in Counter(keys).items() if count > 1}
        if len(keys) >= len(paths) / 2 and len(repeated) >= FEWEST_FOLDERS:
            note = (
                f"{sum(repeated.values()):,} images of left and right have {len(repeated):,} names "
                f"such as {min(repeated)}: are these patients? Then set source.patient: "
                f"'{expression}'"
            )
            return [(len(repeated), note)]
    return []


def _note_on_words(labels: Mapping[str, str]) -> list[tuple[int, str]]:
    """Return the weight of a note on numbers after a word for patients, and the note.

    Such a word says more than any prefix or folder, so its note counts as one on all images. Empty
    if fewer than half of the names have one. ``labels``: class of each image by its path.
    """
    matches = [WORD_NUMBER.match(PurePosixPath(path).stem) for path in labels]
    numbers = Counter((match[1] or match[3], match[2] or match[4]) for match in matches if match)
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

    ``labels``: class of each image by its path.
    """
    if _prefixes_of_folders(prefix, labels) is not None:
        return {}
    matches = [(prefix.match(PurePosixPath(path).stem), label) for path, label in labels.items()]
    starts = [(match[1], label) for match, label in matches if match]
    return {text: count for text, count in _without_classes(starts).items() if count > 1}


def _prefixes_of_folders(
    prefix: re.Pattern[str], labels: Mapping[str, str]
) -> set[str | None] | None:
    """Return the prefixes of file names if all files of each folder have the same; else None.

    Such prefixes say no more than the folder, such as ``Tr-gl_0010`` in ``Training/glioma``.
    """
    folders = defaultdict(set)
    for path in map(PurePosixPath, labels):
        match = prefix.match(path.stem)
        folders[path.parent].add(match and match[1])
    if any(len(texts) > 1 for texts in folders.values()):
        return None
    return {text for texts in folders.values() for text in texts}


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


def _expression(prefixes: Iterable[str], count: int) -> str:
    """Return a regular expression whose group is the number of a patient in a file name.

    Args:
        prefixes: beginnings of file names that end in a number and a separator.
        count: how many numbers are in each.
    """
    if count > 1:
        number, separator = r".*?\d+", r"[_\-. ]"
        return f"^({separator.join([number] * count)}){separator}"
    starts = {(prefix[:-1].rstrip("0123456789"), prefix[-1]) for prefix in prefixes}
    if len(starts) > 1:
        separators = "".join(sorted({re.escape(separator) for _, separator in starts}))
        return rf"^(.*?\d+)[{separators}]"
    ((start, separator),) = starts
    return rf"^{_escape(start)}(\d+){_escape(separator)}"


def _escape(text: str) -> str:
    """Escape the operators of regular expressions in a text; unlike re.escape, keep spaces."""
    return re.sub(r"[.^$*+?{}\[\]\\|()]", r"\\\g<0>", text)
