"""Names, numbers and marks as the report prints them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medscale.base.text import latex as escaped
from medscale.engine.run import RunSpec
from medscale.report import latex, names, style
from medscale.report.names import class_name, class_titles
from medscale.report.reported import compare, read_reported
from medscale.report.tables import with_range
from synthetic_runs import ROOT


def test_published_quantities_have_distinct_labels():
    table = compare(read_reported(ROOT / "reported.yaml", "skin"), [])
    assert not table[["meant", "item", "quantity"]].duplicated().any()
    assert not table.loc[table["meant"] != "", ["meant", "quantity"]].duplicated().any()
    assert {"accuracy, training", "accuracy, validation", "accuracy, test"} < set(table["quantity"])
    assert not table["quantity"].str.contains("_").any()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("acne_vulgaris", "acne vulgaris"), ("BCC", "BCC"), ("_a__b_", "_a b_"), ("___", "___")],
)
def test_names_of_classes_have_no_underscores_between_words(name, expected):
    assert class_name(name) == expected
    assert class_name(name, {name: "a title"}) == "a title"
    with class_titles({name: "title of the study"}):
        assert class_name(name) == "title of the study"
        assert class_name(name, {}) == expected
    assert class_name(name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50 % & co_op", r"50 \% \& co\_\allowbreak{}op"),
        ("#{}$", r"\#\{\}\$"),
        ("\\end", r"\textbackslash{}end"),
        ("mélanome", "mélanome"),
        ("e\u0301", "é"),
        ("β Ω", r"\ensuremath{\beta} \ensuremath{\Omega}"),
        ("ệ", "e"),
        ("肺", r"{[}U+80BA{]}\allowbreak{}"),
        ("[1]*", "{[}1{]}{*}"),
        ("a\x07b", "a{[}U+0007{]}b"),
        ("two\nlines", "two lines"),
        (" ", "{[}U+0020{]}"),
        ("x" * 41, "x" * 39 + r"\allowbreak{}xx"),
    ],
)
def test_escape(text, expected):
    assert escaped(text) == expected


def test_numbers_as_text():
    assert latex.number(0.8712, 1, 100) == "87.1"
    assert latex.number(-1.25, 1) == r"\ensuremath{-}1.2"
    assert latex.number(-1e-14, 1) == "0.0"
    assert latex.number(None, 1) == latex.number(float("nan"), 1) == "--"
    assert [latex.significant(v) for v in (0.01234, 1.0, 123.4, 18894, 0)] == [
        "0.0123",
        "1.00",
        "123",
        "18900",
        "0",
    ]
    assert latex.significant(0.00004752, 2) == r"\ensuremath{4.8\times 10^{-5}}"
    assert latex.significant(-29.19) == r"\ensuremath{-}29.2"


def test_a_column_that_says_nothing_is_left_out_of_a_table():
    text = latex.tabular(
        [("l", "run"), ("r", "energy"), ("r", "time")], [["a", "--", "1"], ["b", "", "--"]]
    )
    assert "run & time" in text
    assert "energy" not in text
    assert "b & --" in text
    assert "{lr}" in text


def test_a_range_needs_two_ends():
    assert with_range(0.29, 0.29, 0.29) == "0.290"
    assert with_range(1.5, 1.25, 1.75, 2) == "1.50 (1.25--1.75)"
    assert with_range(math.nan, math.nan, math.nan) == "--"
    assert latex.span(0.84, 0.902, 1, 100) == "84.0--90.2"
    assert " to " in latex.span(-1.0, 2.0, 1)


def test_every_strategy_has_a_label_and_a_look():
    labels = set()
    for name in (
        "serial_1cpu",
        "serial_amp_1gpu",
        "ddp_2cpu",
        "ddp_amp_2gpu",
        "ddp_amp_mp_4gpu",
        "ddp_mp_4gpu",
    ):
        labels.add(names.label(name))
        assert names.look(name).colour.startswith("#")
    for name in (
        "fsdp_2gpu",
        "fsdp_amp_2gpu",
        "mp_2gpu",
        "mp_amp_2gpu",
        "serial_1gpu_bs64_densenet121",
    ):
        RunSpec.parse(name)
        labels.add(names.label(name))
        assert names.look(name).marker
    assert len(labels) == 11
    assert names.label("serial_1gpu_bs64_densenet121") == "serial, 1 GPU, batch 64, densenet121"


def test_error_bars_are_never_negative():
    bars = style.errors(np.array([1.0]), np.array([1.0 + 1e-12]), np.array([2.0]))
    assert bars.min() >= 0


def test_code_words_and_options_are_printed_as_they_are_typed():
    assert (
        latex.prose("only `medscale verify` & 2 - 1") == r"only \texttt{medscale verify} \& 2 - 1"
    )
    assert latex.prose("own images (`--configfile`), ---") == (
        r"own images (\texttt{-{}-configfile}), -{}-{}-"
    )
    assert latex.prose("a `quote") == r"a \textasciigrave{}quote"
