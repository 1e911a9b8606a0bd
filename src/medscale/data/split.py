"""Divides images into train, val and test: whole groups, at random, or as published; the same for the same seed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medscale.base.errors import MedscaleError
from medscale.data.settings import Split

SPLITS = ("train", "val", "test")


def assign(rows: pd.DataFrame, settings: Split) -> pd.Series:
    """The split of each row.

    Args:
        rows: ``label, group, split_published``, an image a row, in the order of the index.
        settings: mode, wanted shares and seed. ``grouped`` never divides a ``group``, ``random`` divides image by
            image, both stratified by label; ``published`` takes ``split_published``.

    Raises:
        MedscaleError: when a split would be empty, a class has no training images, or no split was published.
    """
    if settings.mode == "published":
        check_published(rows)
        splits = rows["split_published"]
    else:
        groups = (
            rows["group"]
            if settings.mode == "grouped"
            else pd.Series(range(len(rows)), index=rows.index)
        )
        splits = pd.Series(_divide(rows["label"], groups, settings), index=rows.index, dtype=object)
    _check(rows["label"], splits, settings)
    return splits


def balanced(labels: pd.Series, seed: int) -> np.ndarray:
    """Which images stay when each class is cut at random to the size of the smallest.

    Args:
        labels: class of each image, in the order of the index (by path): the same order gives the same choice.
        seed: decides the choice; that within a class does not depend on the other classes' images.

    Returns:
        bool, shape N.
    """
    codes, classes = pd.factorize(labels, sort=True)
    least = np.bincount(codes).min()
    stay = np.zeros(len(labels), bool)
    for code in range(len(classes)):
        members = np.flatnonzero(codes == code)
        stay[np.random.default_rng([seed, code]).permutation(members)[:least]] = True
    return stay


def check_published(rows: pd.DataFrame) -> None:
    """Raise MedscaleError where ``split_published`` lacks train, val or test."""
    there = set(rows["split_published"].dropna())
    if missing := [split for split in SPLITS if split not in there]:
        raise MedscaleError(
            f"split.mode is published, but the raw folder has no {', '.join(missing)} split "
            f"(it has {', '.join(sorted(there)) or 'none'}); set split.mode to grouped or random"
        )


def _divide(labels: pd.Series, groups: pd.Series, settings: Split) -> np.ndarray:
    """Give whole groups to splits so that each class is divided as wanted; split names, shape N.

    Large groups first, each goes where the chi-square distance between the images a class and split has and should
    have grows least. For groups of one image this is Webster's apportionment (Balinski & Young 1982), which for three
    splits stays within one image a class of the wanted share. Before that each class, rarest first, gives one of its
    smallest groups to each split, train first, so that it stands in all three where it has three groups that no
    rarer class has used.
    """
    codes, classes = pd.factorize(labels, sort=True)
    members, names = pd.factorize(groups, sort=True)
    counts = np.zeros((len(names), len(classes)), np.int64)
    np.add.at(counts, (members, codes), 1)
    shuffled = np.random.default_rng(settings.seed).permutation(len(names))
    order = shuffled[np.argsort(-counts.sum(1)[shuffled], kind="stable")]
    shares = np.array([getattr(settings, split) for split in SPLITS])
    wanted = shares[:, None] * counts.sum(0)
    split_of = np.full(len(names), -1)
    given = np.zeros_like(wanted)
    for group, split in _seeds(counts, order):
        split_of[group] = split
        given[split] += counts[group]
    for group in order[split_of[order] < 0]:
        size = counts[group]
        growth = (size * (2 * (given - wanted) + size) / wanted).sum(1)
        split_of[group] = int(np.argmin(growth))
        given[split_of[group]] += size
    return np.array(SPLITS, dtype=object)[split_of[members]]


def _seeds(counts: np.ndarray, order: np.ndarray) -> list[tuple[int, int]]:
    """One group (index) of each class for each split, rarest class first, smallest groups first."""
    seeds: list[tuple[int, int]] = []
    used: set[int] = set()
    has = np.zeros((len(SPLITS), counts.shape[1]), bool)
    for code in np.argsort((counts > 0).sum(0), kind="stable"):
        free = [int(g) for g in order[::-1] if counts[g, code] and int(g) not in used]
        for split in (0, 2, 1):
            if has[split, code] or not free:
                continue
            group = free.pop(0)
            used.add(group)
            seeds.append((group, split))
            has[split] |= counts[group] > 0
    return seeds


def _check(labels: pd.Series, splits: pd.Series, settings: Split) -> None:
    hint = "add images, or change `split` in the configuration"
    for split in SPLITS:
        if not (splits == split).any():
            raise MedscaleError(
                f"the {split} split is empty: {len(labels)} images in too few groups; {hint}"
            )
    untrained = sorted(set(labels) - set(labels[splits == "train"]))
    if untrained:
        raise MedscaleError(
            f"class {', '.join(map(repr, untrained))} has no training images; {hint}"
        )
