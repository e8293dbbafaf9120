"""From settings to the network: each setting of ``[model]`` is one of the network that is built."""

from pathlib import Path

import pytest
import torch

from serein.model import EncoderDescription, ModelConfig, build_adapter, build_classifier
from serein.recipe import Model, Recipe

RECIPES = Path(__file__).parents[1] / "recipes"
ENCODER = EncoderDescription(
    name="e", revision="", fingerprint="", layers=(0, 1), width=6, settings={}, pool=1, frame_rate=50.0
)
USUAL = {"width": 12, "blocks": 2, "heads": 2}
OTHER = {
    "width": 24, "blocks": 3, "heads": 3, "dropout": 0.5, "layer_mix": "joined", "pooling_heads": 2,
    "pooling_variance": "printed", "pooled_norm": "batch",
}  # fmt: skip
TRAINS_OWN = {"talker_statistics", "members", "test_views"}


def logits(**settings: object) -> torch.Tensor:
    """In training, as dropout is to be seen."""
    config = ModelConfig(
        architecture="classifier", model=Model(**(USUAL | settings)), encoder=ENCODER, max_frames=9,
        labels=("angry", "happy", "sad"),
    )  # fmt: skip
    torch.manual_seed(0)
    model = build_classifier(config, build_adapter(config)).train()
    torch.manual_seed(1)
    frames = torch.randn(4, 9, 2, 6)
    output: torch.Tensor = model(frames, torch.zeros(4, 9, dtype=torch.bool))
    return output.detach()


@pytest.mark.parametrize("name", sorted(set(Model.model_fields) - TRAINS_OWN))
def test_every_setting_of_the_network_reaches_it(name):
    assert logits().equal(logits())
    assert not logits(**{name: OTHER[name]}).equal(logits())


def counted(positions: int, **settings: object) -> tuple[int, int]:
    """Trained numbers of the adapter and of the whole network, for whisper-base and eight emotions."""
    encoder = ENCODER.model_copy(update={"layers": (0, 1, 2), "width": 512})
    config = ModelConfig(
        architecture="classifier", model=Model(**settings), encoder=encoder, max_frames=positions,
        labels=tuple("abcdefgh"),
    )  # fmt: skip
    with torch.device("meta"):
        adapter = build_adapter(config)
        model = build_classifier(config, adapter)
    return tuple(sum(p.numel() for p in module.parameters()) for module in (adapter, model))


def test_the_papers_network_has_as_many_parameters_as_the_pages_say():
    block = 384 * 3 * 384 + 3 * 384 + 384 * 384 + 384 + 2 * 4 * 384 * 384 + 4 * 384 + 384 + 4 * 384
    around = 3 + (512 * 384 + 384) + 384 + 1500 * 384 + 3 + 3 * (384 * 384 + 384)
    head = (384 * 4 + 4) + (2 * 384 * 4 * 8 + 8)
    assert counted(1500) == (3 * block + around, 3 * block + around + head) == (6_540_294, 6_566_418)
    assert counted(1500, layer_mix="joined")[1] == 6_566_418 - 3 + 2 * 512 * 384 == 6_959_631
    assert counted(1500, pooled_norm="batch")[1] == 6_566_418 + 2 * 2 * 384 * 4 == 6_572_562


def test_the_laptop_recipe_is_the_network_that_the_results_are_of():
    model = Recipe.read(RECIPES / "laptop.toml").model
    assert (model.members, model.dropout, model.layer_mix, model.pooled_norm) == (5, 0.3, "joined", "batch")
    assert counted(375, **model.model_dump())[1] == 503_437  # of thirty seconds at 12.5 frames a second
