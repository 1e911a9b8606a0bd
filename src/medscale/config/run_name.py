"""The type of settings that name runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medscale.engine.parallel.strategies.registry import STRATEGIES

# For editors; RunSpec.parse says which part of a name is wrong.
RUN_NAME = (
    rf"^({'|'.join(STRATEGIES)})(_amp)?(_mp)?_[1-9][0-9]*(cpu|gpu)(_bs[1-9][0-9]*)?"
    r"(_[a-z][a-z0-9_]*)?$"
)
RunName = Annotated[str, Field(json_schema_extra={"pattern": RUN_NAME})]
