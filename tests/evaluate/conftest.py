import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from serein.corpus.protocol import Fold, Protocol

LABELS = ("angry", "happy", "neutral", "sad")
TALKERS = ("F1", "F2", "F3", "M1", "M2", "M3")
SEEDS = (0, 1)
STEPS = 6
ADAPT_COLUMNS = (
    "reconstruction",
    "pseudo_cross_entropy",
    "reconstruction_weight",
    "teacher_spread",
    "usage",
    "perplexity",
)


def utterance_ids(talker: str) -> tuple[str, ...]:
    return tuple(f"{talker}_{index:02}" for index in range(12))


def truth_of(id_: str) -> str:
    return LABELS[int(id_[-2:]) % len(LABELS)]


def make_protocol(**changes: object) -> Protocol:
    pairs = [("F1", "M1"), ("F2", "M2"), ("F3", "M3")]
    sides = [tuple(id_ for talker in pair for id_ in utterance_ids(talker)) for pair in pairs]
    folds = tuple(
        Fold(f"fold-{k}", train=sides[(k + 2) % 3], validation=sides[(k + 1) % 3], test=sides[k]) for k in range(3)
    )
    settings = {"name": "three-pairs", "description": "Each pair of talkers is tested once.", "corpus": "toy"}
    return Protocol(**{**settings, "labels": LABELS, "folds": folds, **changes})


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def history_rows(rng: np.random.Generator) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for stage, epochs in (("adapt", 4), ("finetune", 5), ("refit", 3)):
        for step in range(epochs * STEPS):
            epoch, last = step // STEPS, step % STEPS == STEPS - 1
            row = {"stage": stage, "epoch": epoch, "step": step, "loss": 2 / (epoch + 1) + 0.1 * rng.random()}
            row |= {"learning_rate": 1e-4, "gradient_norm": rng.random()}
            if stage == "adapt":
                row |= {name: 0.4 + 0.1 * rng.random() for name in ADAPT_COLUMNS}
                row["agreement"] = epoch / 10
            elif stage == "finetune":
                row["train_accuracy"] = 1 - 1 / (epoch + 2)
                row["validation_ua"] = 0.5 + 0.05 * epoch if last else ""
                row["validation_wa"] = 0.5 + 0.04 * epoch if last else ""
            rows.append(row)
    return rows


def write_run(
    folder: Path, *, accuracy: float = 0.7, adapter: bool = True, random_seed: int = 0,
    protocol: Protocol | None = None, **facts: object,
) -> Path:  # fmt: skip
    rng = np.random.default_rng(random_seed)
    protocol = protocol or make_protocol()
    folder.mkdir(parents=True, exist_ok=True)
    run = {
        "format": 1,
        "system": "adapter" if adapter else "linear",
        "name": "adapter" if adapter else "linear probe",
        "adapter_training": "inductive" if adapter else "none",
        "seeds": list(SEEDS),
        "command": "serein crossval frames/ --protocol three-pairs --seeds 2 -o runs/toy",
        "corpus": "toy",
        "encoder": {"name": "toy/encoder", "revision": "main", "fingerprint": "ab12", "layers": [2, 3], "width": 8,
                    "frame_rate": 50.0, "settings": {}},
        "synthetic": False,
        "leaks": [],
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run | facts))
    (folder / "recipe.toml").write_text('[finetune]\nepochs = 5 # <b>"five"</b>\n')
    (folder / "environment.json").write_text(json.dumps({"python": "3.11", "threads": 2, "versions": {"numpy": "2"}}))
    protocol.save(folder / "protocol.json")

    predictions: list[dict[str, object]] = []
    for fold in protocol.folds:
        for seed in SEEDS:
            for id_ in fold.test:
                truth = truth_of(id_)
                guess = truth if rng.random() < accuracy else LABELS[rng.integers(len(LABELS))]
                shares = {f"p_{label}": 0.7 if label == guess else 0.1 for label in LABELS}
                talker = id_.split("_")[0]
                row = {
                    "id": id_,
                    "talker": talker,
                    "fold": fold.name,
                    "seed": seed,
                    "truth": truth,
                    "prediction": guess,
                }
                predictions.append(row | shares)
            here = folder / "folds" / fold.name / f"seed-{seed}"
            here.mkdir(parents=True)
            centres = np.eye(4)[[LABELS.index(truth_of(id_)) for id_ in fold.test]]
            spaces = {"encoder": rng.normal(size=(len(fold.test), 8)).astype(np.float32)}
            stages = {"finetune": 30.0, "test": 0.25}
            if adapter:
                spaces["system"] = (centres + 0.3 * rng.normal(size=centres.shape)).astype(np.float32)
                stages = {"adapt": 100.0, **stages}
                write_table(here / "history.csv", history_rows(rng))
            save_file(spaces, here / "embeddings.safetensors", {"serein": json.dumps({"ids": fold.test})})
            parameters = {"adapter": 5000, "head": 37}
            cost = {"seconds": stages, "peak_memory_bytes": 2**30, "trainable_parameters": parameters,
                    "choice": {"epochs": 5}, "collapsed": False}  # fmt: skip
            (here / "cost.json").write_text(json.dumps(cost))
    write_table(folder / "predictions.csv", predictions)
    return folder


@pytest.fixture(scope="session")
def default_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For tests that change nothing in it."""
    return write_run(tmp_path_factory.mktemp("default") / "run", leaks=["fold fold-0: 1 text: <i>dogs</i>"])


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    return lambda name="run", **settings: write_run(tmp_path / name, **settings)
