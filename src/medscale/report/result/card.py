"""The model card of a result: what was trained, how well it does, what it must not be used for."""

from __future__ import annotations

from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from medscale.evaluate.boxes import NAMES as BOX_NAMES
from medscale.evaluate.calibration import CALIBRATED
from medscale.evaluate.metrics import NAMES
from medscale.report.marks import mark
from medscale.report.names import GROUPS, OVER, STATES, TOO_FEW, label
from medscale.report.result.origin import origins

TEMPLATE = """\
# {{ s.study }}: {{ s.model.name }}, {{ label }}

{% if mark %}> **{{ mark }}.** The figures below show that the workflow works. They say nothing \
about the diagnosis of
> patients{% if s.marks.stand_in %}, nor about the speed of GPUs{% endif %}.

{% endif %}
Sections after Mitchell et al. (2019), *Model cards for model reporting*.

## Model details

- Network `{{ s.model.name }}`{% if s.model.options %} with options `{{ s.model.options }}`{% \
endif %}, \
weights {{ "from " ~ s.model.pretrained if s.model.pretrained else "from scratch" }}\
{% if s.model.trained != "all" %}, of which {{ s.model.trained | replace("_", " ") }} was \
trained{% endif %}; \
{{ "further input: " ~ s.model.metadata | join(", ") if s.model.metadata else "images are its \
only input" }}.
- Trained as run `{{ s.run.name }}` ({{ label }}) with seeds {{ s.seeds | join(", ") }}; the \
weights are
  those of the {{ "epoch with the smallest validation loss" if classes else "last epoch" }}.
- {{ s.recipe.optimizer }}, peak learning rate {{ "%.3g" | format(s.learning_rate) }}, \
global batch {{ s.global_batch }}, at most {{ s.recipe.epochs }} epochs, schedule {{ \
s.recipe.schedule }}.
- {{ n(s.timing.seconds_per_epoch.mean) }} s an epoch (median without the first), \
{{ "%.1f" | format(s.timing.images_per_second.mean) }} images/s on \
{{ s.run.devices }} {{ "process(es) of" if s.backend == "cpu" else "x" }} {{ hardware }}.
- Made by medscale {{ s.environment.versions.medscale }}\
{% if s.environment.get("finished") %}, finished {{ s.environment.finished }}{% endif %}; cite \
`CITATION.cff`. \
The code's licence is MIT{% if not s.marks.synthetic %}; that of the images may bind the weights \
too{% endif %}.

## Intended use

Research on parallel training, by people who know how classifiers of images are evaluated. **Not \
a medical device**: it
has not been validated on patients outside this dataset and must not be used for diagnosis, \
triage or treatment.

## Factors

{% if s.marks.synthetic %}The images are drawn by a program: there are no patients, and no \
groups of them.
{% else %}Accuracy can depend on the camera or scanner, the site, the projection, and the \
patient's age, sex and skin; \
images of one source share many of these.
{% endif %}
{{ "Subgroups by what is known of the images stand below." if classes else \
"Subgroups (age, sex, site, camera) were not evaluated apart." }}

## Metrics

{% if classes %}Accuracy, balanced accuracy, precision, recall, F1 and the area under the ROC \
curve; the predicted
class is that of the largest probability, and no threshold was chosen for a clinical use.
{% else %}Precision, recall and the challenge's mAP count boxes from a confidence of \
{{ thresholds }} on, chosen on the validation images.
{% endif %}
Values are means over {{ s.seeds | length }} replicate{{ "s" if s.seeds | length > 1 }}. \
The interval is a 95 % bootstrap over {{ over }}
({{ s.bootstrap.resamples }} resamples); the standard deviation over seeds is another thing and \
stands apart.
{% if s.not_averaged %}
Averages over classes leave out {{ s.not_averaged | join(", ") }}: {{ too_few }}.
{% endif %}
{% if s.patients != "known" %}
**Caution: {{ state }}**. Images of one \
patient can be among the training and the test images, \
which makes the figures too good.
{% endif %}

## Evaluation data

{{ s.counts.test.images }} test images of {{ s.counts.test.groups }} {{ groups }}, seen \
once, after training; \
{{ s.counts.val.images }} validation images
({{ s.counts.val.groups }} {{ "groups" if s.patients == "not known" else \
"patients or groups" }}) chose the epoch. {% if classes %}Classes: {{ \
s.classes | join(", ") }}.\
{% else %}{{ s.counts.test.boxes }} boxes on {{ s.counts.test.with_boxes }} of the test images.\
{% endif %}

## Training data

{{ "Synthetic images, generated" if s.marks.synthetic else "Images of real patients" }}; \
{{ s.timing.train_images }} for training\
{% if not classes %} ({{ "those with a box only" if s.detect.images == "with_boxes" else "with \
and without boxes" }})\
{% endif %}. Origin, licence and what was left out: `data/{{ s.study }}/datasheet.md`.

## Quantitative analyses

| metric (test images) | value | 95 % interval | sd over seeds |
|---|---|---|---|
{% for key, v in s.metrics.test.items() %}| {{ names[key] }} \
| {{ n(v.mean) }} | {{ n(v.low) }}–{{ n(v.high) }} | {{ n(v.seed_sd) }} |
{% endfor %}
{% if classes %}
With one class an image, the micro averages of precision, recall and F1 are the accuracy.

| class | images | precision | recall | F1 | AUROC | average precision |
|---|---|---|---|---|---|---|
{% for row in classes %}| {{ row.name }} \
| {{ row.support }} | {{ n(row.precision) }} | {{ n(row.recall) }} | {{ n(row.f1) }} | {{ \
n(row.auroc) }} \
| {{ n(row.auprc) }} |
{% endfor %}
{% if s.confusions %}
Most frequent confusions (images a replicate): {% for c in s.confusions[:5] %}{{ c.true }} taken \
for {{ c.predicted }} \
{{ "%g" | format(c.images) }} ({{ "%.0f" | format(100 * c.share) }} %){{ ", " if not loop.last \
else "." }}{% endfor %}


{% endif %}
### Calibration

{% if s.calibration.temperature is none %}
Without validation images no temperature was fitted.
{% else %}
Logits divided by {{ n(s.calibration.temperature) }} (mean over replicates; fitted on the \
validation images, \
Guo et al. 2017) change the calibration error from {{ n(s.metrics.test.ece.mean) }} to \
{{ n(s.metrics.test.ece_calibrated.mean) }} and the Brier score from {{ \
n(s.metrics.test.brier.mean) }} to \
{{ n(s.metrics.test.brier_calibrated.mean) }}.
{% endif %}

### Operating points

Thresholds chosen on the validation images; sensitivity and specificity on the test images with \
95 % intervals.

| class | validation specificity | threshold | sensitivity | specificity |
|---|---|---|---|---|
{% for o in s.operating %}| {{ o["class"] }} | {{ "%g" | format(100 * o.wanted) }} % | {{ \
n(o.threshold) }} \
| {{ n(o.sensitivity) }} ({{ n(o.sensitivity_low) }}–{{ n(o.sensitivity_high) }}) \
| {{ n(o.specificity) }} ({{ n(o.specificity_low) }}–{{ n(o.specificity_high) }}) |
{% endfor %}

### Subgroups

{% if s.subgroups | length > 3 %}
| by | part | images | metric | value | 95 % interval |
|---|---|---|---|---|---|
{% for g in s.subgroups %}| {{ g.by }} | {{ g.part }} | {{ g.images }} | {{ names[g.metric] }} \
| {{ n(g.mean) }} | {{ n(g.low) }}–{{ n(g.high) }} |
{% endfor %}

A dash: too few images, or undefined.
{% else %}
The images have no age, sex, view or source set that tells them apart, so subgroups were not \
evaluated.
{% endif %}
{% if s.gradcam %}

Where the network looked: {{ s.gradcam.why_none or "gradcam.pdf shows right and wrong cases" }}.
{% endif %}

{% endif %}
Intersections of groups of patients were not analysed.

## Ethical considerations

{% if s.marks.synthetic %}No person's data went into this model.
{% else %}The images are of real people, published for research by others. Weights can keep \
traces of the images that \
they were trained on: share them under the terms of the dataset. A wrong answer can delay a \
diagnosis or cause \
needless anxiety and treatment.
{% endif %}

## Caveats and recommendations

- {{ "Probabilities are calibrated on images from the same sources; elsewhere they may not be." \
if classes else \
"Confidences are not calibrated, and subgroups were not evaluated apart." }}
- Results hold for images from the same sources only; a small subgroup's interval is optimistic.
- Before any use beyond this study: validate on images of the place of use, with thresholds \
chosen there.
{% if p.differ %}- **Its replicates were not made alike**: they differ in {{ p.differ | join(", \
") }}.
{% endif %}
## Provenance

| seed | specification | commit | package | container | images |
|---|---|---|---|---|---|
{% for origin in p.replicates %}| {{ origin.seed }} | {{ origin.plan_digest[:12] }} | {{ \
origin.commit }} \
| {{ origin.code }} | {{ origin.container }} | {{ origin.shards }} |
{% endfor %}
Python {{ s.environment.python }}, PyTorch {{ s.environment.versions.torch }}; {{ hardware }}, \
{{ s.environment.system }}. Digests are the beginnings of SHA-256; `summary.json` has them \
whole, \
with all versions and those of the evaluation.
"""


def model_card(summary: dict[str, Any], per_class: pd.DataFrame | None) -> str:
    """Return the card as Markdown.

    Args:
        summary: the content of summary.json.
        per_class: per_class.csv; None for a detection run.
    """
    machine = summary["environment"]
    return (
        Environment(undefined=StrictUndefined, keep_trailing_newline=True)
        .from_string(TEMPLATE)
        .render(
            s=summary,
            label=label(summary["run"]["name"]),
            mark=mark([summary["marks"]]),
            state=STATES[summary["patients"]],
            over=OVER[summary["patients"]],
            groups=GROUPS[summary["patients"]],
            too_few=TOO_FEW,
            names=NAMES | CALIBRATED | BOX_NAMES,
            classes=[] if per_class is None else _classes(summary, per_class),
            p={"differ": summary["provenance"]["differ"], "replicates": origins(summary)},
            thresholds=", ".join(f"{threshold:.2f}" for threshold in summary.get("thresholds", [])),
            hardware=machine["gpus"][0] if machine.get("gpus") else machine.get("cpu"),
            n=_number,
        )
    )


def _classes(summary: dict[str, Any], per_class: pd.DataFrame) -> list[dict[str, Any]]:
    wide = per_class.pivot(index="class", columns="metric", values="mean").reindex(
        summary["classes"]
    )
    support = per_class.drop_duplicates("class").set_index("class")["support"]
    return [
        {"name": name, "support": int(support[name]), **wide.loc[name].to_dict()}
        for name in wide.index
    ]


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"
