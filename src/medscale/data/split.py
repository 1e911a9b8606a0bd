"""Division of images into train, val and test: by groups, at random, by source, or as published."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.data import folds
from medscale.data.metadata import word
from medscale.data.settings import SPLITS, Split


def assign(rows: pd.DataFrame, settings: Split) -> pd.Series:
    """Return the split of each row; the same seed gives the same splits.

    The modes are:

    - ``grouped``: whole groups, stratified by label;
    - ``random``: single images, stratified by label;
    - ``published``: ``split_published``. If it has no validation split, whole groups are taken from
      the training split, in the proportion of the shares ``val`` and ``train``;
    - ``source``: the groups of the held-out value are the test split; the other groups are divided
      in the same proportion;
    - ``external``: all images are test images.

    Args:
        rows: ``label, group, split_published``, one row for each image, in the order of the index.
        settings: mode, shares and seed.

    Raises:
        MedscaleError: when a split would be empty, a class would have no training images, or no
            split is published.
    """
    if settings.mode == "external":
        return pd.Series("test", index=rows.index, dtype=object)
    shares = {split: float(getattr(settings, split)) for split in SPLITS}
    if settings.mode in ("published", "source"):
        if settings.mode == "published":
            check_published(rows)
            splits = rows["split_published"].astype(object)
        else:
            splits = _hold_out(rows, settings)
        if not (splits == "val").any():
            training = _without_test(rows[splits == "train"], settings)
            splits = splits.where(splits != "train", training)
    else:
        images = pd.Series(range(len(rows)), index=rows.index)
        groups = rows["group"] if settings.mode == "grouped" else images
        names = _divide(rows["label"], groups, shares, settings.seed)
        splits = pd.Series(names, index=rows.index, dtype=object)
    _check(rows, splits)
    return splits


def assign_folds(rows: pd.DataFrame, settings: Split) -> pd.DataFrame:
    """Return the fold of each row and its split in each fold, see ``folds.divide``.

    The images that a fold does not test are divided into train and val by groups, in the proportion
    of these shares.

    Raises:
        MedscaleError: see ``assign``; the message names the fold.
    """
    assert settings.folds is not None
    table = folds.divide(
        rows, settings.folds, settings.seed, lambda rest: _without_test(rest, settings)
    )
    for fold in range(1, settings.folds + 1):
        try:
            _check(rows, table[f"{folds.PREFIX}{fold}"])
        except MedscaleError as error:
            raise MedscaleError(f"fold {fold}: {error}") from None
    return table


def _without_test(rows: pd.DataFrame, settings: Split) -> pd.Series:
    """Divide images into train and val, by groups, in the proportion of these shares."""
    total = settings.train + settings.val
    shares = {"train": settings.train / total, "val": settings.val / total}
    names = _divide(rows["label"], rows["group"], shares, settings.seed)
    return pd.Series(names, index=rows.index, dtype=object)


def balanced_rows(labels: pd.Series, seed: int) -> np.ndarray:
    """Choose images so that each class has the size of the smallest.

    Args:
        labels: class of each image, in the order of the index (by path), which affects the choice.
        seed: seed of the choice; the choice within a class does not depend on other classes.

    Returns:
        bool, shape N.
    """
    codes, classes = pd.factorize(labels, sort=True)
    smallest = np.bincount(codes).min()
    keep = np.zeros(len(labels), bool)
    for code in range(len(classes)):
        members = np.flatnonzero(codes == code)
        keep[np.random.default_rng([seed, code]).permutation(members)[:smallest]] = True
    return keep


def check_published(rows: pd.DataFrame) -> None:
    """Check that ``split_published`` has training and test images.

    Raises:
        MedscaleError: otherwise.
    """
    published = set(rows["split_published"].dropna())
    if missing := [split for split in ("train", "test") if split not in published]:
        raise MedscaleError(
            f"split.mode is published, but the raw folder has no {', '.join(missing)} split "
            f"(it has {', '.join(sorted(published)) or 'none'}); set split.mode to grouped or "
            "random"
        )


def lacks_validation(rows: pd.DataFrame) -> bool:
    """Return whether the published split has no validation images."""
    return not (rows["split_published"] == "val").any()


def _hold_out(rows: pd.DataFrame, settings: Split) -> pd.Series:
    """Return ``test`` for each group with an image of the held-out value, and ``train`` otherwise.

    An image that shares a group (patient, near-duplicate) with the held-out images must not train
    the network.

    Raises:
        MedscaleError: when no image has the value.
    """
    if settings.column not in rows:
        raise MedscaleError(
            f"split.column is {settings.column!r}, but the images have no such column; they have: "
            f"{', '.join(map(str, rows.columns))}"
        )
    values = rows[settings.column].dropna().map(word)
    images = values.index[values == settings.held_out]
    if images.empty:
        raise MedscaleError(
            f"split.held_out is {settings.held_out!r}, but no image has this {settings.column}; "
            f"there are: {', '.join(sorted(values.unique()))}"
        )
    held_out = rows["group"].isin(set(rows.loc[images, "group"]))
    return pd.Series(np.where(held_out, "test", "train"), index=rows.index, dtype=object)


def check_listed(rows: pd.DataFrame, settings: Split) -> pd.DataFrame | None:
    """Check, before any image is read, whether the listed images can be divided.

    The audit only leaves out images and joins groups, so that a division which fails here would
    also fail after the audit.

    Args:
        rows: rows of an inventory.
        settings: settings of the division.

    Returns:
        The rows with a group and a split for each: with folds all are test images, since each image
        is tested once. A published or held-out test split can lack classes. None if only the
        headers of the images can have the column that divides them.

    Raises:
        MedscaleError: when they cannot be divided.
    """
    if settings.mode == "source" and settings.column not in rows:
        return None
    if settings.mode == "published":
        check_published(rows)
        rows = rows[rows["split_published"].notna()]
    if settings.balance:
        rows = rows[balanced_rows(rows["label"], settings.seed)]
    rows = rows.assign(group=rows["group"].where(rows["group"].notna(), rows["path"]))
    if settings.folds is not None:
        assign_folds(rows, settings)
        return rows.assign(split="test")
    return rows.assign(split=assign(rows, settings))


def _divide(
    labels: pd.Series, groups: pd.Series, share_of: dict[str, float], seed: int
) -> np.ndarray:
    """Assign whole groups to splits so that each class has the configured shares.

    First each class, the rarest first, gives one of its smallest groups to each split. It is then
    in all three splits, if it has three groups that no rarer class has used. Then the other groups
    follow in descending order of size. Each goes to the split for which the chi-square distance
    between actual and desired numbers of images by class and split grows least. For groups of one
    image this is Webster's apportionment (Balinski & Young 1982), which for three splits differs
    from the desired share by less than one image of each class.

    Args:
        labels: class of each image, shape N.
        groups: group of each image, shape N.
        share_of: share of the images by split, in the order of ``SPLITS``.
        seed: seed for the order of groups of equal size.

    Returns:
        Split names, shape N.
    """
    codes, classes = pd.factorize(labels, sort=True)
    members, names = pd.factorize(groups, sort=True)
    counts = np.zeros((len(names), len(classes)), np.int64)  # images by group and class
    np.add.at(counts, (members, codes), 1)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-counts.sum(1)[shuffled], kind="stable")]
    splits, shares = list(share_of), np.array(list(share_of.values()))
    desired = shares[:, None] * counts.sum(0)
    actual = np.zeros_like(desired)
    split_of_group = np.full(len(names), -1)
    for group, split in _first_groups(counts, order, splits):
        split_of_group[group] = split
        actual[split] += counts[group]
    for group in order[split_of_group[order] < 0]:
        size = counts[group]
        growth = (size * (2 * (actual - desired) + size) / desired).sum(1)
        split = int(np.argmin(growth))
        split_of_group[group] = split
        actual[split] += size
    return np.array(splits, dtype=object)[split_of_group[members]]


def _first_groups(
    counts: np.ndarray, order: np.ndarray, splits: list[str]
) -> list[tuple[int, int]]:
    """Return one group of each class for each split: rarest class first, smallest groups first.

    Each class gives a group to train first, then to test, then to val.
    """
    pairs: list[tuple[int, int]] = []
    used_groups: set[int] = set()
    has_class = np.zeros((len(splits), counts.shape[1]), bool)
    split_order = [splits.index(split) for split in ("train", "test", "val") if split in splits]
    for code in np.argsort((counts > 0).sum(0), kind="stable"):
        free = [int(g) for g in order[::-1] if counts[g, code] and int(g) not in used_groups]
        for split in split_order:
            if has_class[split, code] or not free:
                continue
            group = free.pop(0)
            used_groups.add(group)
            pairs.append((group, split))
            has_class[split] |= counts[group] > 0
    return pairs


def _check(rows: pd.DataFrame, splits: pd.Series) -> None:
    """Check that no split is empty, and that each class has training images.

    Raises:
        MedscaleError: otherwise.
    """
    hint = "add images, or change `split` or `source.patient` in the configuration"
    labels, groups = rows["label"], rows["group"].nunique()
    for split in SPLITS:
        if not (splits == split).any():
            raise MedscaleError(
                f"the {split} split is empty: {len(labels)} images; patients, or groups of "
                f"near-duplicates: {groups}; {hint}"
            )
    if untrained := sorted(set(labels) - set(labels[splits == "train"])):
        raise MedscaleError(
            f"class {', '.join(map(repr, untrained))} has no training images; {hint}"
        )
