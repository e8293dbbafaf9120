"""The folder of an adapter: trained on a store without labels, and taken up again to be trained with them."""

from pathlib import Path

from serein.errors import ModelError, StoreError, UsageError
from serein.files import write_atomically
from serein.frames.store import FrameStore
from serein.hub import find_model
from serein.model import CARD_FILE, ModelConfig, build_adapter, check_folder, load_model, save_model
from serein.nn.transformer import WAPTransformer
from serein.progress import Report, quiet
from serein.recipe import Recipe
from serein.train.adapt import adapt
from serein.train.card import adapter_card
from serein.train.checkpoint import Checkpoint, digest
from serein.train.crossval import model_config
from serein.train.inspect import save_attributes
from serein.train.machine import arithmetic


def adapt_store(store: FrameStore, folder: str | Path, recipe: Recipe, *, seed: int = 0, report: Report = quiet) -> str:
    """Train an adapter on all frames of a store, without labels; save it as a model folder without a head.

    Its local attributes stand beside it (:func:`serein.train.inspect.save_attributes`). Whatever the recipe's
    ``adapt.data`` is, all of the store is heard, and the card says "inductive".

    Returns:
        what happened if its teacher collapsed, in words that its card has too, or "".

    Raises:
        StoreError: the frames are of another speed than the recordings.
        UsageError: the recipe has talker statistics, or the folder a README.md and no model.
        Diverged: a loss or a weight is no longer finite.
    """
    check_folder(folder)
    if "speed" in store.settings:
        raise StoreError(
            f"{store.folder}: holds frames at speed {store.settings['speed']:g}, and a model hears recordings as they "
            "are; give the store extracted without --speed"
        )
    refuse_talker_statistics(recipe)
    recipe = recipe.model_copy(update={"adapt": recipe.adapt.model_copy(update={"data": "inductive"})})
    folder = Path(folder)
    array = store.load(mapped=recipe.speed.frames == "mapped")
    config = model_config(store, array, recipe, ()).model_copy(update={"architecture": "adapter"})
    purpose = digest(recipe, seed, config, store.digest, arithmetic(recipe.speed))
    checkpoint = Checkpoint(folder / "adapt.checkpoint.safetensors", recipe.speed.checkpoint_seconds, purpose)
    adapted = adapt(array, array.indices(array.ids), config, recipe, seed=seed, checkpoint=checkpoint, report=report)
    save_model(folder, adapted.adapter, config)
    save_attributes(folder, adapted.attributes.prototypes, recipe.adapt)
    write_atomically(folder / CARD_FILE, adapter_card(store.corpus(), config, recipe, adapted.collapse).encode())
    checkpoint.remove()
    return adapted.collapse


def take_adapter(folder: str | Path, wanted: ModelConfig) -> tuple[WAPTransformer, ModelConfig]:
    """The adapter of a folder, and the wanted model on top of it: what shapes its weights comes from the adapter.

    Raises:
        ModelError: out of reach, no adapter, or one for other or for shorter frames.
    """
    module, config = load_model(find_model(folder))
    if not isinstance(module, WAPTransformer) or not config.encoder.gives_frames_of(wanted.encoder):
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


def refuse_talker_statistics(recipe: Recipe) -> None:
    """Raise a UsageError where a recipe has talker statistics, which need more than the recording to be judged."""
    if recipe.model.talker_statistics != "none":
        raise UsageError(
            "model.talker_statistics: a model to ship hears one recording, not all of a talker's; leave it none"
        )
