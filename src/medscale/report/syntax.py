"""Syntax of the paper's templates and of answers to checklists, by marks that LaTeX lacks."""

from typing import Any

SYNTAX: dict[str, Any] = {
    "block_start_string": "<%",
    "block_end_string": "%>",
    "variable_start_string": "<<",
    "variable_end_string": ">>",
    "comment_start_string": "<#",
    "comment_end_string": "#>",
}
