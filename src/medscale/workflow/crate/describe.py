"""Metadata of a packed study: Workflow Run Crate 0.5 on RO-Crate 1.1 (Leo et al. 2024)."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from rocrate.model.contextentity import ContextEntity
from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from medscale.base.code import package_digest
from medscale.base.files import read_json, sha256
from medscale.config.configuration import Config
from medscale.report.marks import mark
from medscale.report.result.origin import container_name
from medscale.workflow.crate.kinds import MODEL, PAPER, REPLICATE
from medscale.workflow.crate.manifest import MANIFEST
from medscale.workflow.crate.pack import OF_STUDY

SPECIFICATION = "1.1"
TERMS = "https://w3id.org/ro/terms/workflow-run"
PROFILES = (
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0"),
)
BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
DONE = "http://schema.org/CompletedActionStatus"
LICENCE = "https://spdx.org/licenses/MIT"
EVALUATION = "scripts/evaluate.py"
# Keys of a replicate's record that the crate repeats, besides versions.
CIRCUMSTANCES = (
    "seed", "fold", "plan_digest", "commit", "dirty", "code", "python",
    "cpu", "cpus", "gpus", "driver", "cuda", "system",
)  # fmt: skip


class Description:
    """The metadata of one crate, built over the files that lie in its folder."""

    def __init__(self, folder: Path, config: Config, agent: str | None) -> None:
        """Read the results and start a crate.

        Args:
            folder: the packed files.
            config: the configuration of the studies.
            agent: name of the person or group that ran the study, if it is published.
        """
        self.folder, self.titles = folder, config.titles
        self.crate = ROCrate(version=SPECIFICATION)
        self.crate.metadata.extra_contexts.append(f"{TERMS}/context")
        self.results = [read_json(path) for path in sorted(folder.glob("results/*/*/summary.json"))]
        self.agent = agent and self._add("#agent", "Person", name=agent)
        studies = dict.fromkeys(summary["study"] for summary in self.results)
        # Each point of a sweep is an entry of `studies`. It uses the images of the sweep's study.
        self.data_of = {study: config.data_of(study) for study in studies}
        self.datasets = {
            name: self._dataset_of(name) for name in dict.fromkeys(self.data_of.values())
        }

    def write(self, left_out: Mapping[str, int]) -> None:
        """Describe all files of the folder and write the metadata into it.

        Args:
            left_out: number of files of the study that the crate does not have, by kind.
        """
        trained = [
            self._trained(summary, at)
            for summary in self.results
            for at in range(len(summary["replicates"]))
        ]
        evaluated = [self._evaluated(summary) for summary in self.results]
        workflow = self._workflow(left_out)
        action = self._workflow_run(workflow, trained, evaluated)
        root = self.crate.root_dataset
        root["conformsTo"] = [
            self._add(url, "CreativeWork", name=n, version=v) for url, n, v in PROFILES
        ]
        root["mentions"] = [action, *trained, *evaluated]
        self._file(MANIFEST, description="SHA-256 of each file of the crate")
        self.crate.write(self.folder)

    def _workflow(self, left_out: Mapping[str, int]) -> Entity:
        """Return the Snakefile with the scripts that it runs."""
        root, environment = self.crate.root_dataset, self.results[0]["environment"]
        marks = mark(summary["marks"] for summary in self.results)
        root["name"] = (
            "medscale: how far does parallel training take medical imaging, "
            "and at what cost in accuracy?"
        )
        root["description"] = " ".join(
            [
                f"{len(self.results)} runs of {', '.join(self.data_of)}: code, specifications, "
                "predictions, results, figures and tables. Images that were trained on are not "
                "part of it; datasheets say where they come from.",
                *([f"Left out: {counted(left_out)}."] if left_out else []),
                *([f"This is a demonstration ({marks})."] if marks else []),
                *self._other_code(),
            ]
        )
        root["license"] = self._add(LICENCE, "CreativeWork", name="MIT License")
        cited = yaml.safe_load((self.folder / "CITATION.cff").read_text(encoding="utf-8"))
        root["author"] = root["publisher"] = self._add(
            "#authors", "Organization", name=cited["authors"][0]["name"]
        )
        self._file("README.md", about=root)
        workflow = self.crate.add_workflow(
            self.folder / "Snakefile",
            "Snakefile",
            main=True,
            lang="snakemake",
            lang_version=environment["versions"]["snakemake"],
            properties={
                "name": "From raw images to the paper",
                "version": _version(environment),
                "license": {"@id": LICENCE},
                "encodingFormat": "text/plain",
                "conformsTo": {"@id": BIOSCHEMAS},
            },
        )
        training = sorted({_training_script(summary) for summary in self.results})
        workflow["hasPart"] = [self._software(script) for script in (*training, EVALUATION)]
        return workflow

    def _other_code(self) -> list[str]:
        """Return a sentence if the crate's code is not the code that made its results."""
        records = [r for summary in self.results for r in summary["provenance"]["replicates"]]
        other = sum(record.get("code") != package_digest() for record in records)
        if not other:
            return []
        return [
            f"{other} of {len(records)} replicates were trained by another state of the code than "
            "the one packed here; each one's action names its commit and the package's digest."
        ]

    def _workflow_run(
        self, workflow: Entity, trained: list[Entity], evaluated: list[Entity]
    ) -> Entity:
        """Return the action of the whole study, from configuration and images to the paper."""
        config = self._file("config.resolved.json")
        papers = [self._file(PAPER)] if (self.folder / PAPER).is_file() else []
        folders = [self._folder(name) for name in ("results", "figures", "tables")]
        for name, entity in self.datasets.items():
            self._parameter(workflow, "input", f"images of {name}", "Dataset", entity)
        self._parameter(workflow, "input", "configuration", "File", config)
        for entity in folders:
            self._parameter(workflow, "output", entity.id.rstrip("/"), "Dataset", entity)
        for paper in papers:
            self._parameter(workflow, "output", "paper", "File", paper)
        starts = [action["startTime"] for action in trained if action.get("startTime")]
        return self._action(
            "#study",
            workflow,
            "The study, from raw images to the paper",
            "Snakemake made every file of this crate that is not code; "
            "the first training's start stands for its own.",
            [config, *self.datasets.values()],
            [*folders, *papers],
            min(starts) if starts else None,
            self._time_of(PAPER) if papers else max(a["endTime"] for a in evaluated),
        )

    def _trained(self, summary: dict[str, Any], at: int) -> Entity:
        """Return the action of the training of one replicate."""
        study, run, name = summary["study"], summary["run"]["name"], summary["replicates"][at]
        record, place = summary["provenance"]["replicates"][at], f"runs/{study}/{run}/{name}"
        end = record.get("finished") or self._time_of(f"{place}/timing.json")
        start = (
            None if summary["timing"]["restarts"]["values"][at] else record.get("started")
        )  # the record has the start of the last process only
        weights = [MODEL] if (self.folder / place / MODEL).is_file() else []
        action = self._action(
            f"#{place}",
            self._software(_training_script(summary)),
            f"Training of {study}/{run}, {name}",
            f"{summary['model']['name']} on {summary['timing']['train_images']} images by "
            f"{summary['run']['devices']} processes "
            f"({mark([summary['marks']]) or 'real images and devices'}).",
            [self._file(f"{place}/spec.json"), self.datasets[self.data_of[study]]],
            [self._file(f"{place}/{name}") for name in (*REPLICATE[1:], *weights)],
            start,
            end,
        )
        values = [(key, record.get(key)) for key in CIRCUMSTANCES]
        action["environment"] = [
            self._add(
                f"#environment/{key}/{quote(_plain(value))}",
                "PropertyValue",
                name=key,
                value=_plain(value),
            )
            for key, value in [*values, *record["versions"].items()]
            if value not in (None, [])
        ]
        if record.get("container"):
            image = container_name(record)
            kind = {"@id": f"{TERMS}#SIFImage"}
            action["containerImage"] = self._add(
                f"#{image}", "ContainerImage", name=image, additionalType=kind
            )
        return action

    def _evaluated(self, summary: dict[str, Any]) -> Entity:
        """Return the action of the evaluation of a run's replicates."""
        study, run = summary["study"], summary["run"]["name"]
        place = f"results/{study}/{run}"
        predictions = [
            self._file(f"runs/{study}/{run}/{name}/predictions.parquet")
            for name in summary["replicates"]
        ]
        result = self._folder(place, name=f"Result of {study}/{run}")
        result["hasPart"] = [
            self._file(f"{place}/{name}") for name in ("summary.json", "model_card.md")
        ]
        return self._action(
            f"#{place}",
            self._software(EVALUATION),
            f"Evaluation of {study}/{run}",
            "Metrics with intervals over patients, figures and model card, from predictions.",
            predictions,
            [result],
            None,
            self._time_of(f"{place}/summary.json"),
        )

    def _action(
        self,
        name: str,
        instrument: Entity,
        title: str,
        description: str,
        used: Iterable[Entity],
        results: Iterable[Entity],
        start: str | None,
        end: str,
    ) -> Entity:
        properties = {
            "name": title,
            "description": description,
            "endTime": end,
            "actionStatus": DONE,
        }
        properties |= {"startTime": start} if start else {}
        action = self.crate.add_action(
            instrument, name, _one_or_all(used), _one_or_all(results), properties=properties
        )
        if self.agent:
            action["agent"] = self.agent
        return action

    def _dataset_of(self, study: str) -> Entity:
        """Return a study's images: datasheet, audit, and the digest of their index."""
        digests = {
            summary["provenance"]["evaluation"]["inputs"]["index"]
            for summary in self.results
            if self.data_of[summary["study"]] == study
        }
        description = (
            "The images are not part of the crate. SHA-256 of their index: "
            f"{', '.join(sorted(digests))}. The crate's copy of the index has no names of files or "
            "patients, and of metadata only the distribution that the datasheet prints."
        )
        dataset = self._folder(
            f"data/{study}", name=f"Images: {self.titles[study]}", description=description
        )
        files = [f"data/{study}/{name}" for name in OF_STUDY]
        dataset["hasPart"] = [self._file(f) for f in files if (self.folder / f).is_file()]
        return dataset

    def _parameter(self, workflow: Entity, way: str, name: str, kind: str, example: Entity) -> None:
        identifier = f"#{way}/{name.replace(' ', '-')}"
        parameter = self.crate.add_formal_parameter(
            name, kind, identifier, properties={"workExample": example}
        )
        example["exampleOfWork"] = parameter
        workflow.append_to(way, parameter)

    def _software(self, script: str) -> Entity:
        environment = self.results[0]["environment"]
        properties = {
            "@type": ["File", "SoftwareSourceCode"],
            "name": Path(script).stem,
            "version": _version(environment),
        }
        return self._file(script, **properties)

    def _file(self, path: str, **about: Any) -> Entity:
        if (entity := self.crate.get(path)) is not None:
            return entity
        file, kind = self.folder / path, mimetypes.guess_type(path)[0]
        about |= {"sha256": sha256(file), "encodingFormat": kind or "application/octet-stream"}
        return self.crate.add_file(file, path, properties={"name": path, **about}, record_size=True)

    def _folder(self, path: str, **about: Any) -> Entity:
        return self.crate.get(f"{path}/") or self.crate.add_dataset(
            dest_path=path, properties={"name": path, **about}
        )

    def _add(self, identifier: str, kind: str, **about: Any) -> Entity:
        entity = self.crate.get(identifier)
        return entity or self.crate.add(
            ContextEntity(self.crate, identifier, properties={"@type": kind, **about})
        )

    def _time_of(self, path: str) -> str:
        """Return when a file was written, where no record says when its job ended."""
        return datetime.fromtimestamp((self.folder / path).stat().st_mtime, UTC).isoformat(
            "T", "seconds"
        )


def counted(files: Mapping[str, int]) -> str:
    """Return numbers of files by kind in words."""
    return ", ".join(f"{count} of {kind}" for kind, count in sorted(files.items()))


def _training_script(summary: dict[str, Any]) -> str:
    """Return the script that trained a result's replicates; detectors have their own."""
    return "scripts/train_detector.py" if summary.get("detect") else "scripts/train.py"


def _version(environment: dict[str, Any]) -> str:
    """Return the code's version: number, commit, and whether files differed from it."""
    parts = [environment["versions"]["medscale"], environment["commit"] or "no commit"]
    return " ".join(
        [str(part) for part in parts] + (["with local changes"] if environment["dirty"] else [])
    )


def _one_or_all(entities: Iterable[Entity]) -> Entity | list[Entity]:
    """Return the entity of a list of one, as RO-Crate recommends."""
    listed = list(entities)
    return listed[0] if len(listed) == 1 else listed


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
