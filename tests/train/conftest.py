import pytest
from torch import Tensor

from serein.frames.batches import FrameArray
from serein.frames.store import FrameStore
from serein.model import ModelConfig
from serein.recipe import Recipe
from serein.train.crossval import classes_of, model_config


@pytest.fixture(scope="session")
def material(tone_store: FrameStore, tiny_recipe: Recipe) -> tuple[FrameArray, Tensor, ModelConfig]:
    """The tones' frames, their labels, and a network for them."""
    corpus = tone_store.corpus()
    array = tone_store.load()
    return (
        array,
        classes_of(array.ids, corpus, corpus.labels),
        model_config(tone_store, array, tiny_recipe, corpus.labels),
    )
