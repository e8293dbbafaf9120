"""What a report says about how the scores came about: cost, protocol, and all that is needed to run it again."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from serein.evaluate.document import Block, Code, Details, Paragraph, Section, Table
from serein.evaluate.runs import Run


def cost(run: Run) -> list[Block]:
    """Time, memory and parameters, and what validation chose; nothing where that is not known."""
    stages = list(dict.fromkeys(stage for done in run.fold_runs for stage in done.seconds))
    if not stages:
        return []
    rows = []
    for stage in stages:
        seconds = [done.seconds[stage] for done in run.fold_runs if stage in done.seconds]
        rows.append([stage, _duration(sum(seconds) / len(seconds)), _duration(sum(seconds))])
    rows.append(["all", "", _duration(sum(sum(done.seconds.values()) for done in run.fold_runs))])
    parameters = run.fold_runs[0].trainable_parameters
    parts = ", ".join(f"{part} {number:,}" for part, number in parameters.items())
    memory = max(done.peak_memory_bytes for done in run.fold_runs)
    each = [
        [
            done.fold,
            str(done.seed),
            ", ".join(f"{name} {value:.4g}" for name, value in done.choice.items()),
            *(_duration(done.seconds[stage]) if stage in done.seconds else "" for stage in stages),
        ]
        for done in run.fold_runs
    ]
    return [
        Section("Cost"),
        Table(["Stage", "A fold and seed", "Altogether"], rows),
        Paragraph(
            f"Trainable parameters: {sum(parameters.values()):,} ({parts}). Most memory in use, on a processor "
            f"with what the process did before: {memory / 2**30:.2f} GiB. The frozen encoder's frames were extracted "
            "before and are not counted."
        ),
        Details(
            "Every fold and seed, and what its validation part chose",
            [Table(["Fold", "Seed", "Choice", *stages], each, text_columns=3)],
        ),
    ]


def protocol(run: Run) -> list[Block]:
    """The protocol in words, who is in each fold, and what its parts share."""
    talkers = {row.id: row.talker for row in run.predictions}
    rows = [
        [fold.name, *(_named(part, talkers) for part in parts), *(f"{len(part):,}" for part in parts)]
        for fold in run.protocol.folds
        for parts in [(fold.test, fold.validation, fold.train)]
    ]
    header = ["Fold", "Test talkers", "Validation talkers", "Training talkers", "Test", "Validation", "Training"]
    parts = "training and the other two parts" if run.protocol.oracle else "the parts"
    shared: list[Block] = [
        Paragraph(
            f"Of a fold {parts} share no talker, recording or text that the corpus names. Copies of a recording are "
            "found where its table has their hashes, as those of serein corpus do."
        )
    ]
    if run.leaks:
        text = "A text in two parts is normal where all say the same sentences; a recording in both is a fault."
        shared = [Table(["Shared between parts"], [[leak] for leak in run.leaks]), Paragraph(text)]
    unread: list[Block] = []
    if run.without_frames:
        reasons = [[name, reason] for name, reason in run.without_frames.items()]
        unread = [Details("Utterances that could not be read", [Table(["Utterance", "Why"], reasons, text_columns=2)])]
    if run.protocol.oracle:
        shared.append(Paragraph("ORACLE: the validation part of a fold is its test part."))
    return [
        Section("Protocol"),
        Paragraph(f"{run.protocol.name}, hash {run.protocol.hash}. {run.protocol.description}"),
        Paragraph(f"Adapter training: {run.adapter_training}. Labels: {', '.join(run.protocol.labels)}."),
        Table(header, rows, text_columns=4),
        *shared,
        *unread,
    ]


def reproduction(run: Run) -> list[Block]:
    """Everything that is needed to run it again."""
    return [
        Section("To run it again"),
        Code(run.command),
        Details("Recipe", [Code(run.recipe)]),
        *(
            Details(what, [Table(["", ""], _facts(facts), text_columns=2)])
            for what, facts in (("Encoder", run.encoder), ("Environment", run.environment))
            if facts
        ),
    ]


def _named(ids: Iterable[str], talkers: Mapping[str, str]) -> str:
    """Talkers; an utterance that no fold tests has no row in predictions.csv, so its talker is not known here."""
    every = list(ids)
    names = sorted({talkers[id_] for id_ in every if id_ in talkers})
    unknown = sum(id_ not in talkers for id_ in every)
    said = names if len(names) <= 12 else [f"{len(names)} talkers"]
    return ", ".join([*said, *([f"those of {unknown:,} utterances that no fold tests"] if unknown else [])])


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _facts(content: Mapping[str, Any]) -> list[list[str]]:
    return [
        [str(key), value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
        for key, value in content.items()
    ]
