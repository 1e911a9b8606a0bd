"""Writes claims.schema.json, by which editors complete and check claims.yaml.

``python -m medscale.report.claims.schema`` (``make settings``) writes it into the checkout.
"""

from __future__ import annotations

import json

from medscale.base.code import ROOT
from medscale.base.files import write_text
from medscale.config.schema import DRAFT
from medscale.report.claims.measures import MEASURES
from medscale.report.claims.statements import Claims

PATH = ROOT / "claims.schema.json"


def schema_text() -> str:
    """Return claims.schema.json."""
    document = Claims.model_json_schema()
    measures = document["$defs"]["Claim"]["properties"]["measure"]
    measures["enum"] = list(MEASURES)
    whole = {"$schema": DRAFT, **document, "title": "medscale: claims"}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    write_text(PATH, schema_text())
