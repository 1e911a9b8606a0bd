"""The plan of a run, from the sections of its study."""

from __future__ import annotations

import os

from medscale.base.code import ROOT
from medscale.base.errors import MedscaleError
from medscale.base.files import expand_home
from medscale.config.configuration import Config
from medscale.config.sections import Study
from medscale.engine.parallel.strategies.registry import STRATEGIES
from medscale.engine.plan import HUB, Augment, Detect, Model, Recipe, RunPlan
from medscale.engine.run import RunSpec, is_detector


def plan(
    config: Config, study: str, run: str | RunSpec, seed: int, fold: int | None = None
) -> RunPlan:
    """Complete a run with the study's configuration.

    Raises MedscaleError for an unknown study or run name, for a fold that the study does not have,
    and for external images, on which nothing is trained.

    Args:
        seed: of the replicate.
        fold: of the replicate; None in a study with folds is the first, as in the index.
    """
    settings = config.study(study)
    if settings.external_of is not None:
        raise MedscaleError(
            f"{study} holds external images of {settings.external_of}, on which nothing is trained;"
            f" ask for external/{study}/<run>"
        )
    spec = RunSpec.parse(run) if isinstance(run, str) else run
    stand_in = spec.device == "gpu" and config.stand_in_gpu
    nodes = _nodes(config, spec, stand_in)
    model, recipe, augment, detect = _training(study, settings, spec)
    if (weights := weight_file(config, model.pretrained)) is not None:
        model = model.model_copy(update={"pretrained": weights})
    return RunPlan(
        study=study,
        run=spec,
        seed=seed,
        fold=_fold(study, settings, fold),
        scale=config.scale,
        synthetic=settings.source.synthetic,
        stand_in=stand_in,
        backend="cuda" if spec.device == "gpu" and not stand_in else "cpu",
        nodes=nodes,
        procs_per_node=spec.devices // nodes,
        model=model,
        augment=augment,
        recipe=recipe,
        parallel=settings.parallel,
        detect=detect,
        tensorboard=settings.tensorboard,
    )


def weight_file(config: Config, pretrained: str | None) -> str | None:
    """Return the file of a setting ``pretrained``; None for random weights and those of the hub.

    A relative path begins at the project's root. The returned one begins at the workdir, as all
    paths of jobs do, so that a moved checkout reruns nothing. Raises MedscaleError for the home
    folder of an unknown user.
    """
    if pretrained is None or pretrained == HUB:
        return None
    path = expand_home(pretrained)
    if path.is_absolute():
        return str(path)
    return os.path.relpath(ROOT.resolve() / path, (ROOT / config.workdir).resolve())


def _fold(study: str, settings: Study, fold: int | None) -> int | None:
    """Return a fold that the study has, the first by default; None in a study without folds."""
    folds = settings.split.folds
    if fold is None:
        return None if folds is None else 1
    if not 1 <= fold <= (folds or 0):
        raise MedscaleError(f"{study} has no fold {fold}: split.folds is {folds or 'not set'}")
    return fold


def check_profiled(study: str, plan: RunPlan) -> None:
    """Raise MedscaleError for a run over several nodes, as the profiler is started on one."""
    if plan.nodes > 1:
        on_one_node = plan.run.model_copy(update={"devices": plan.procs_per_node})
        raise MedscaleError(
            f"profiled/{study}/{plan.run.name}: a run over {plan.nodes} nodes cannot be profiled; "
            f"name a run on one node, such as {on_one_node.name}"
        )


def _nodes(config: Config, spec: RunSpec, stand_in: bool) -> int:
    """Return the number of nodes over which a run's devices divide evenly."""
    # CPU processes of one machine stand in for the GPUs of all nodes; a cluster has real nodes.
    if stand_in and config.cluster is None:
        return 1
    on_gpus = spec.device == "gpu" and not (stand_in and config.node.gpus == 0)
    per_node = config.node.gpus if on_gpus else config.node.cpus
    if per_node == 0:
        raise MedscaleError(
            f"{spec.name} runs on GPUs, and node.gpus is 0: give the number of GPUs of a node, or "
            "leave it out of `runs`"
        )
    nodes = -(-spec.devices // per_node)
    if spec.devices % nodes:
        raise MedscaleError(
            f"{spec.name}: {spec.devices} devices do not divide over {nodes} nodes of {per_node}; "
            "ask for a multiple, or change `node` in config.yaml"
        )
    return nodes


def _training(
    study: str, settings: Study, spec: RunSpec
) -> tuple[Model, Recipe, Augment, Detect | None]:
    """Return a run's model, recipe and augmentation, and the settings of detection if it is one."""
    model, recipe, augment = _model(settings, spec.model), settings.recipe, settings.augment
    detect = None
    if is_detector(model.name):
        model, recipe, augment, detect = _detection(study, settings, spec, model.name)
    if spec.batch is not None:
        recipe = recipe.model_copy(update={"batch_size": spec.batch})
    return model, recipe, augment, detect


def _model(settings: Study, name: str | None) -> Model:
    """Return the study's model, or that of a run's name with its settings from ``models``."""
    if name is None or name == settings.model.name:
        return settings.model
    return settings.models.get(
        name, Model(name=name, trained=settings.model.trained, metadata=settings.model.metadata)
    )


def _detection(
    study: str, settings: Study, spec: RunSpec, name: str
) -> tuple[Model, Recipe, Augment, Detect]:
    """Return model, recipe and augmentation of a study's detection runs."""
    detect = settings.detect
    if detect is None:
        raise MedscaleError(
            f"the study {study} has no section `detect`, so {name} cannot be trained on it"
        )
    if settings.split.folds is not None:
        raise MedscaleError(
            f"{spec.name} is a detection, but {study} is a cross-validation (split.folds), which "
            "is for classification"
        )
    if not STRATEGIES[spec.strategy].detection or spec.mp:
        possible = " or ".join(s.name for s in STRATEGIES.values() if s.detection)
        raise MedscaleError(f"{spec.name}: detection runs are {possible}, such as ddp_4gpu_{name}")
    recipe = Recipe(
        epochs=detect.epochs,
        batch_size=detect.batch_size,
        batch_is="global",
        lr=detect.lr,
        tf32=settings.recipe.tf32,
        half=settings.recipe.half,
    )
    return Model(name=name, pretrained=detect.pretrained), recipe, detect.augment, detect
