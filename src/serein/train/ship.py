"""The model to ship: one training on all talkers of a store, after the choices were made on some of them."""

import json
from collections.abc import Sequence
from pathlib import Path

from serein.corpus.corpus import Corpus
from serein.corpus.protocol import Fold
from serein.corpus.splits import make_protocol
from serein.errors import CorpusError, ModelError, UsageError
from serein.frames.store import FrameStore, write_atomically
from serein.model import ModelConfig, build_adapter, load_model, save_model
from serein.nn.transformer import WAPTransformer
from serein.progress import Report, quiet
from serein.recipe import Recipe
from serein.train.adapt import adapt
from serein.train.checkpoint import Checkpoint, digest
from serein.train.crossval import check_views, label_indices, model_config
from serein.train.inspect import save_attributes
from serein.train.material import gather
from serein.train.systems import adapter
from serein.train.task import Task

ORIGINS = {
    "none": "The adapter was not trained without labels.",
    "inductive": "The adapter was first trained without labels, on the other talkers only.",
    "transductive": "The adapter was first trained without labels on all talkers, so it heard that fifth too: the "
    "score is a transductive one.",
    "elsewhere": "The adapter was trained before, without labels, on other corpora only: so says the recipe, and "
    "nothing here has checked it.",
}


def adapt_store(
    store: FrameStore, folder: str | Path, recipe: Recipe, *, seed: int = 0, report: Report = quiet
) -> ModelConfig:
    """Train an adapter on all frames of a store, without labels; save it as a model folder without a head.

    Its local attributes stand beside it (:func:`serein.train.inspect.save_attributes`).
    """
    _refuse_talker_statistics(recipe)
    folder = Path(folder)
    array = store.load()
    config = model_config(store, array, recipe, ()).model_copy(update={"architecture": "adapter"})
    path = folder / "adapt.checkpoint.safetensors"
    checkpoint = Checkpoint(path, recipe.speed.checkpoint_seconds, digest(recipe, seed, config, array.ids))
    adapted = adapt(array, array.indices(array.ids), config, recipe, seed=seed, checkpoint=checkpoint, report=report)
    save_model(folder, adapted.adapter, config)
    save_attributes(folder, adapted.attributes.prototypes, recipe.adapt)
    checkpoint.remove()
    return config


def train_model(
    store: FrameStore,
    corpus: Corpus,
    folder: str | Path,
    recipe: Recipe,
    *,
    adapter_folder: str | Path | None = None,
    views: Sequence[FrameStore] = (),
    seed: int = 0,
    report: Report = quiet,
) -> dict[str, int | float]:
    """Train the classifier to ship and save its model folder.

    The number of epochs is chosen on a fifth of the talkers, whom that training does not see; then the classifier is
    trained on all talkers. No test talkers are left to score it: ``serein crossval`` says what to expect of it.

    Args:
        store: the frames.
        corpus: the labels.
        folder: the model.
        recipe: the settings.
        views: the same corpus extracted at other speeds, for training, and with ``model.test_views`` for judging too.
        adapter_folder: an adapter from ``serein adapt``, used instead of training one here.
        seed: of the run.
        report: told of every step.

    Returns:
        what was chosen, and the validation scores at that epoch.

    Raises:
        CorpusError: fewer than three talkers, or than two emotions.
        ModelError: the adapter does not fit the frames.
        StoreError: a view is not of the same corpus at another speed.
        UsageError: the recipe asks for talker statistics, for an adapter from elsewhere that is not given, or for
            ``model.test_views`` without views.
    """
    folder = Path(folder)
    corpus = corpus.select(lambda utterance: utterance.emotion != "")
    if len(corpus.talkers) < 3 or len(corpus.labels) < 2:
        raise CorpusError(f"corpus {corpus.name}: training needs three talkers and two emotions at least")
    _refuse_talker_statistics(recipe)
    if recipe.adapt.data == "elsewhere" and adapter_folder is None:
        raise UsageError('adapt.data = "elsewhere": run `serein adapt` on the other corpus, and give --adapter')
    check_views(recipe, views)
    material = gather(store, [utterance.id for utterance in corpus], views=views)
    array = material.array
    config = model_config(store, array, recipe, corpus.labels)
    pretrained = None
    if adapter_folder is not None:
        pretrained, config = _pretrained(adapter_folder, config)
        recipe = recipe.model_copy(update={"model": config.model})
    if recipe.model.test_views:
        config = config.model_copy(update={"speeds": (1.0, *(view.settings["speed"] for view in views))})
    held_out = make_protocol(f"talkers-{min(5, len(corpus.talkers))}", corpus, seed=seed).folds[0].test
    train = tuple(utterance.id for utterance in corpus if utterance.id not in set(held_out))
    task = Task(
        array, label_indices(array, corpus, corpus.labels), material.talkers,
        Fold("ship", train, held_out, ()), config, recipe, seed, folder, views=material.views, pretrained=pretrained,
    )  # fmt: skip
    outcome = adapter(task, report)
    save_model(folder, outcome.model, config)
    chosen = outcome.choice["epochs"]
    scores = next(
        row
        for row in outcome.history
        if row["stage"] == "finetune" and row["epoch"] == chosen - 1 and "validation_ua" in row
    )
    facts = {
        "epochs": chosen,
        "validation_ua": scores["validation_ua"],
        "validation_wa": scores["validation_wa"],
        "talkers": len(corpus.talkers),
        "utterances": len(corpus),
    }
    write_atomically(folder / "README.md", _card(corpus, config, recipe, facts, pretrained is not None).encode())
    task.remove_checkpoints()
    return facts


def _refuse_talker_statistics(recipe: Recipe) -> None:
    if recipe.model.talker_statistics != "none":
        raise UsageError(
            "model.talker_statistics: a model to ship hears one recording, not all of a talker's; leave it none"
        )


def _pretrained(folder: str | Path, wanted: ModelConfig) -> tuple[WAPTransformer, ModelConfig]:
    """The adapter of a folder, and the wanted model on top of it: what shapes its weights comes from the adapter."""
    module, config = load_model(folder)
    if not isinstance(module, WAPTransformer) or config.encoder != wanted.encoder:
        raise ModelError(
            f"{folder}: is not an adapter for these frames "
            f"(it wants {config.encoder.name}, layers {list(config.encoder.layers)})"
        )
    if config.max_frames < wanted.max_frames:
        raise ModelError(
            f"{folder}: learned positions for {config.max_frames} frames, the longest utterance has "
            f"{wanted.max_frames}; run `serein adapt` on these frames"
        )
    shape = {name: getattr(config.model, name) for name in ("width", "blocks", "heads", "layer_mix")}
    model = wanted.model.model_copy(update=shape)
    config = wanted.model_copy(update={"model": model, "max_frames": config.max_frames})
    adapter = build_adapter(config)  # with the dropout of the recipe, not of the adapter's training
    adapter.load_state_dict(module.state_dict())
    return adapter, config


def _card(corpus: Corpus, config: ModelConfig, recipe: Recipe, facts: dict[str, int | float], given: bool) -> str:
    front = {"library_name": "serein", "pipeline_tag": "audio-classification", "base_model": config.encoder.name}
    header = "\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items())
    origin = ORIGINS[recipe.adapt.data]
    if given and recipe.adapt.data != "elsewhere":
        origin = "The adapter was trained before, and may have heard those talkers without their labels."
    return f"""\
---
{header}
---

# Speech emotion recognition: {", ".join(config.labels)}

Trained by serein on corpus {corpus.name} ({facts["utterances"]} utterances, {facts["talkers"]} talkers), on frames of
`{config.encoder.name}`, layers {list(config.encoder.layers)}, which stay as they are.

A fifth of the talkers chose the number of epochs ({facts["epochs"]}); on them UA was {facts["validation_ua"]:.3f} and
WA {facts["validation_wa"]:.3f}. That is a validation score, not a test score: `serein crossval` gives an honest one.
{origin}

Labels are emotions as listeners perceive them, not as talkers feel them. Not for decisions about people.

```toml
{recipe.to_toml().strip()}
```
"""
