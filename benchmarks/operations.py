"""How much work there is: floating point operations of an encoder, of training steps, and of a cross-validation.

Counted by torch's flop counter. Useful work alone is counted: no padding, no judging of validation and test utterances.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from synthetic import SAMPLE_RATE
from torch.utils.flop_counter import FlopCounterMode

from serein.corpus.corpus import Corpus
from serein.corpus.protocol import Protocol
from serein.frames.store import FrameStore
from serein.model import build_adapter
from serein.recipe import Recipe
from serein.train.adapt import adapt
from serein.train.crossval import classes_of, model_config
from serein.train.finetune import finetune
from serein.train.systems import fresh_classifier

HUBERT_LARGE = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    "conv_bias": True, "do_stable_layer_norm": True, "feat_extract_norm": "layer",
}  # fmt: skip


def encoder_flops(config: dict[str, Any], seconds: Sequence[float]) -> float:
    """Of a forward pass over recordings of these lengths, without padding: a linear and a quadratic term of each."""
    with torch.device("meta"):
        model = transformers.HubertModel._from_config(transformers.HubertConfig(**config), attn_implementation="eager")
    counted = []
    for length in (5, 20):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(torch.empty(1, length * SAMPLE_RATE, device="meta"))
        counted.append(counter.get_total_flops() / length)
    slope = (counted[1] - counted[0]) / (20 - 5)
    return sum(length * (counted[0] + slope * (length - 5)) for length in seconds)


def step_flops(store: FrameStore, corpus: Corpus, recipe: Recipe) -> dict[str, float]:
    """A frame, of an adapter's training step and of a classifier's, counted on one batch of middling lengths.

    On the CPU the products inside of attention, about a tenth, stay uncounted: torch's counter does not know them.
    """
    once = Recipe.from_toml(recipe.to_toml(), ["adapt.epochs=1", "finetune.epochs=1"])
    array = store.load()
    middle = array.lengths.argsort()[len(array.ids) // 2 :][: min(8, once.adapt.batch_size)]
    frames = int(array.lengths[middle].sum())
    config = model_config(store, array, once, corpus.labels)
    with FlopCounterMode(display=False) as adapting:
        adapt(array, middle, config, once)
    model = fresh_classifier(config, once, build_adapter(config), 0)
    labels = classes_of(array.ids, corpus, corpus.labels)
    plain = Recipe.from_toml(once.to_toml(), ["finetune.balance=none"])
    with FlopCounterMode(display=False) as tuning:
        finetune(model, array, labels, middle, plain, classes=corpus.labels)
    return {"adapt": adapting.get_total_flops() / frames, "finetune": tuning.get_total_flops() / frames}


def job_flops(run: Path, store: FrameStore, corpus: Corpus, protocol: Protocol, recipe: Recipe) -> float:
    """Of the steps of a finished cross-validation of the adapter, with the epochs that its folds chose."""
    frames = dict(zip(store.ids, store.load().lengths.tolist(), strict=True))
    a_frame = step_flops(store, corpus, recipe)
    work = 0.0
    for fold in protocol.folds:
        epochs = cost_of(run, fold.name)["choice"]["epochs"]
        train, known = (sum(frames[name] for name in ids) for ids in (fold.train, fold.train + fold.validation))
        if recipe.adapt.data != "none":
            work += recipe.adapt.epochs * train * a_frame["adapt"]
        work += (judged_epochs(run, fold.name) * train + recipe.model.members * epochs * known) * a_frame["finetune"]
    return work


def judged_epochs(run: Path, fold: str) -> int:
    """Epochs of the training that validation talkers judge: the recipe's, or more where ``min_steps`` asks for them."""
    with (run / "folds" / fold / "seed-0" / "history.csv").open(newline="", encoding="utf-8") as file:
        return 1 + max(int(row["epoch"]) for row in csv.DictReader(file) if row["stage"] == "finetune")


def cost_of(run: Path, fold: str) -> dict[str, Any]:
    """What a fold of a finished run took, under its first seed."""
    cost: dict[str, Any] = json.loads((run / "folds" / fold / "seed-0" / "cost.json").read_text(encoding="utf-8"))
    return cost
