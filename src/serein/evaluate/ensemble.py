"""Several finished runs, or the seeds of one, as a committee: their probabilities averaged, in a run folder again."""

import json
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors.numpy import save

from serein.errors import CorpusError, UsageError
from serein.evaluate.embeddings import load_embeddings
from serein.evaluate.predictions import Prediction, predictions_table
from serein.evaluate.runs import IMPORTED, Run, label_share, load_run
from serein.files import as_json, write_atomically

# what flatters one member flatters the committee
BY_FLATTERY = ("transductive", "inductive", "elsewhere", "none")


def average(folders: Sequence[str | Path], output: str | Path) -> Path:
    """Write the run of a committee of all seeds of these runs; nothing is trained.

    Every member has one voice: the probabilities of all runs' seeds are averaged, so a run of three seeds has three
    times the weight of a run of one. The costs of the members are summed.

    Args:
        folders: finished runs under one protocol.
        output: the new run's folder, which must not hold a run.

    Raises:
        CorpusError: a run is not finished, or was made under another protocol than the first.
        UsageError: the output holds a run already, a run is given twice, was imported, or learned from another share of
            the labels than the first.
    """
    output = Path(output)
    if (output / "run.json").exists():
        raise UsageError(f"{output}: holds a run already; give another folder with -o")
    places = [Path(folder).resolve() for folder in folders]
    if twice := [place for place in places if places.count(place) > 1]:
        raise UsageError(f"{twice[0]}: is given twice, so its votes would count twice; leave one of them out")
    runs = [load_run(folder) for folder in folders]
    for run in runs:
        if run.system == IMPORTED:
            raise UsageError(f"{run.folder}: was imported; average where it was made, and import the average")
    first = runs[0]
    for run in runs[1:]:
        if run.protocol.hash != first.protocol.hash or run.truths() != first.truths():
            raise CorpusError(
                f"{run.folder}: was not tested on the utterances of {first.folder}; run both under one protocol"
            )
        if label_share(run) != label_share(first):
            raise UsageError(f"{run.folder}: learned from another share of the labels than {first.folder}")
    labels = first.protocol.labels
    mean = _mean(runs)
    members = sum(len(run.seeds) for run in runs)
    names = list(dict.fromkeys(run.name for run in runs))

    for fold in first.protocol.folds:
        place = output / "folds" / fold.name / "seed-0"
        done = [one for run in runs for one in run.fold_runs if one.fold == fold.name]
        stages = sorted({stage for one in done for stage in one.seconds})
        parts = sorted({part for one in done for part in one.trainable_parameters})
        costs = {
            "seconds": {stage: sum(one.seconds.get(stage, 0.0) for one in done) for stage in stages},
            "peak_memory_bytes": max(one.peak_memory_bytes for one in done),
            "trainable_parameters": {
                part: sum(one.trainable_parameters.get(part, 0) for one in done) for part in parts
            },
            "choice": {},
            "collapsed": any(one.collapsed for one in done),
        }
        write_atomically(place / "cost.json", as_json(costs).encode())
        assert done[0].embeddings  # only what was imported has none
        seen = load_embeddings(done[0].embeddings, fold.test)
        ids = {"serein": json.dumps({"ids": seen.ids})}
        write_atomically(place / "embeddings.safetensors", save({"encoder": seen.encoder}, ids))
    write_atomically(output / "predictions.csv", predictions_table(_rows(first, labels, mean), labels).encode())
    first.protocol.save(output / "protocol.json")
    write_atomically(output / "environment.json", (first.folder / "environment.json").read_bytes())
    write_atomically(output / "recipe.toml", _recipe(runs).encode())
    said = [json.loads((run.folder / "run.json").read_text(encoding="utf-8")) for run in runs]
    facts = {key: value for key, value in said[0].items() if all(other.get(key) == value for other in said)}
    facts |= {"corpus": first.corpus, "encoder": _encoder(runs)}
    facts["leaks"] = list(dict.fromkeys(leak for run in runs for leak in run.leaks))
    facts["synthetic"] = any(run.synthetic for run in runs)
    facts["without_frames"] = {name: why for run in runs for name, why in run.without_frames.items()}
    facts |= {"name": f"{' + '.join(names)}, {members} averaged", "seeds": [0], "system": "ensemble"}
    facts["adapter_training"] = min((run.adapter_training for run in runs), key=BY_FLATTERY.index)
    facts["talker_statistics"] = max((run.talker_statistics for run in runs), key=lambda said: said != "none")
    facts["command"] = shlex.join(["serein", "ensemble", *map(str, folders), "-o", str(output)])
    write_atomically(output / "run.json", as_json(facts).encode())  # last: with it this is a run
    return output


def _mean(runs: Sequence[Run]) -> dict[str, Float[np.ndarray, " labels"]]:
    """Of each test utterance, over all runs and seeds."""
    voices: dict[str, list[tuple[float, ...]]] = {}
    for run in runs:
        for row in run.predictions:
            voices.setdefault(row.id, []).append(row.probabilities)
    return {name: np.mean(said, axis=0) for name, said in voices.items()}


def _recipe(runs: Sequence[Run]) -> str:
    """The members' own; where they have several, the first's, and above it whose it is not."""
    first = runs[0]
    others = [run.folder for run in runs if tomllib.loads(run.recipe) != tomllib.loads(first.recipe)]
    said = [f"# {str(folder)!r} has a recipe of its own; this is that of {str(first.folder)!r}\n" for folder in others]
    return "".join([*said, first.recipe])


def _encoder(runs: Sequence[Run]) -> Mapping[str, Any]:
    """The members' own; where they have several, all of them under ``members``. Weights tell them apart, not names."""
    different: dict[str, Mapping[str, Any]] = {}
    for encoder in (each for run in runs for each in run.encoder.get("members", [run.encoder])):
        what_it_is = {key: fact for key, fact in encoder.items() if key not in ("name", "revision")}
        different.setdefault(json.dumps(what_it_is), encoder)
    first, *others = different.values()
    return {"members": [first, *others]} if others else first


def _rows(run: Run, labels: Sequence[str], mean: Mapping[str, Float[np.ndarray, " labels"]]) -> Iterator[Prediction]:
    for row in run.predictions:
        if row.seed == run.seeds[0]:
            scores = mean[row.id]
            yield row._replace(seed=0, prediction=labels[int(scores.argmax())], probabilities=tuple(scores.tolist()))
