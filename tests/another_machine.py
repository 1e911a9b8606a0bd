"""A classification that believes to train on another machine, which computes in another format."""

from __future__ import annotations

from typing import Any

from medscale.base import provenance
from medscale.engine.train import replicate
from medscale.engine.train.task import Classification

CPU = "Another CPU"


class ElsewhereClassification(Classification):
    """See ``Classification``; the process, which is forked for this training, has another name."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        provenance._cpu_name = lambda: CPU
        replicate.format_of = lambda plan, device: "fp16"
