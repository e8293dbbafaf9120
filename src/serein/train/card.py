"""The model card: what a model is, what it learned from, how good it is, and what it is not for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from huggingface_hub import EvalResult, ModelCardData

from serein.corpus.about import is_known, known_of
from serein.corpus.corpus import Corpus
from serein.evaluate.calibration import BINS, Calibration
from serein.evaluate.comparison import ends
from serein.evaluate.remarks import remarks
from serein.evaluate.runs import Run
from serein.evaluate.summary import summarise
from serein.model import EncoderDescription, ModelConfig
from serein.recipe import Recipe

TAGS = ["serein", "speech-emotion-recognition", "emotion", "speech"]


@dataclass(frozen=True)
class Made:
    """How a classifier came about.

    Attributes:
        corpus: the utterances it learned from, all labelled.
        config: the classifier.
        recipe: the settings.
        origin: whom its adapter heard, in a sentence; "" for a linear probe, which has none.
        facts: the number of epochs or C, and UA and WA on the talkers who chose it.
        calibration: of its probabilities.
        run: the cross-validation of the same corpus and recipe; None where there is none.
    """

    corpus: Corpus
    config: ModelConfig
    recipe: Recipe
    origin: str
    facts: dict[str, int | float]
    calibration: Calibration
    run: Run | None


def model_card(made: Made) -> str:
    """The ``README.md`` of a classifier, with the front matter that the Hugging Face Hub reads.

    It names no folder of this machine.
    """
    front = ModelCardData(
        language=_code(made.corpus),
        library_name="serein",
        pipeline_tag="audio-classification",
        base_model=_base_model(made.config.encoder),
        tags=TAGS,
        model_name=f"serein-{made.corpus.name}" if made.run else None,
        eval_results=_results(made.run, made.corpus) if made.run else None,
    )
    labels = ", ".join(made.config.labels)
    opening = (
        f"Names the emotion that listeners would hear in a recording of speech: {labels}. {_network(made.config)} on "
        f"{_encoder(made.config.encoder)}, which stays as it is."
    )
    if made.config.architecture == "classifier" and made.config.model.members > 1:
        opening += f" {made.config.model.members} networks are averaged."
    if len(made.config.speeds) > 1:
        opening += f" A recording is heard at the speeds {', '.join(f'{speed:g}' for speed in made.config.speeds)}."
    return _page(front, [
        f"# Speech emotion recognition: {labels}", opening,
        "## Use", _use(), "## Intended use and limits", *_limits(made.corpus, made.config),
        "## Training data", *_data(made.corpus), "## Scores", *_scores(made),
        "## Calibration", *_calibration(made), *([] if made.config.architecture == "linear" else _making(made.recipe)),
    ])  # fmt: skip


def collapsed(collapse: str) -> str:
    """A warning that the adapter says little, from what happened to its teacher."""
    return f"Its training without labels collapsed ({collapse}), so the adapter has little to say."


def adapter_card(corpus: Corpus, config: ModelConfig, recipe: Recipe, collapse: str = "") -> str:
    """The ``README.md`` of an adapter, which was trained without labels and has no classifier."""
    front = ModelCardData(
        language=_code(corpus), library_name="serein", base_model=_base_model(config.encoder), tags=TAGS
    )
    size = f"{config.model.blocks} transformer blocks, {config.model.width} wide"
    opening = f"An adapter ({size}) on {_encoder(config.encoder)}, trained without labels. It names no emotion yet."
    if collapse:
        opening += f" {collapsed(collapse)}"
    use = "```\nserein train frames/ --adapter adapter/ -o model/  # this folder, or USER/NAME on the Hub\n```"
    return _page(front, [
        "# Adapter for speech emotion recognition", opening, "## Use", use,
        "## Training data", _about(corpus), _heard(corpus), *_making(recipe),
    ])  # fmt: skip


def _page(front: ModelCardData, blocks: Sequence[str]) -> str:
    return "\n\n".join([f"---\n{front.to_yaml()}\n---", *blocks]) + "\n"


def _base_model(encoder: EncoderDescription) -> str | None:
    return encoder.name if encoder.revision else None


def _encoder(encoder: EncoderDescription) -> str:
    frames = f"{encoder.frame_rate:g} frames a second"
    if encoder.name == "logmel":
        return f"log-mel frames ({frames})"
    layers = f"layers {', '.join(map(str, encoder.layers))}, {frames}"
    if encoder.revision:
        return f"frames of `{encoder.name}` at commit `{encoder.revision}` ({layers})"
    name, weights = encoder.without_folder().name, encoder.fingerprint[:12]
    return f"frames of an encoder kept in a folder named `{name}` ({layers}; SHA-256 of its weights begins {weights})"


def _use() -> str:
    return """\
```python
from serein import EmotionRecognizer
recognizer = EmotionRecognizer.from_pretrained("model/")  # this folder, or USER/NAME on the Hub
print(recognizer("recording.wav"))
```"""


def _limits(corpus: Corpus, config: ModelConfig) -> list[str]:
    heard = "; ".join(
        [f"{known.language}, {known.speech}" for known in known_of(corpus)]
        + ([] if is_known(corpus) else [f"the talkers and the speech of {corpus.name}"])
    )
    points = [
        "Labels are emotions as listeners perceive them, not as talkers feel them.",
        "Not for decisions about people: not for hiring, schooling, policing, credit, insurance or health.",
        f"It learned from {heard}. Other languages, rooms, microphones and ways to speak were not tested.",
        f"It knows {len(config.labels)} labels and gives their probabilities for music, noise and silence too.",
        "No licence is stated: whoever shares it chooses one that the terms below and the encoder's allow.",
    ]
    return ["For research, teaching and trying out on recordings whose talkers agreed.", _list(points)]


def _about(corpus: Corpus) -> str:
    said = [f"{known.title} ({known.language}, {known.speech}). Terms: {known.terms}." for known in known_of(corpus)]
    if not is_known(corpus):
        said.append(f"{'The rest of corpus' if said else 'Corpus'} {corpus.name}; its terms are not known to serein.")
    return " ".join(said)


def _heard(corpus: Corpus) -> str:
    return f"{len(corpus):,} utterances, {len(corpus.talkers)} talkers."


def _data(corpus: Corpus) -> list[str]:
    counts = Counter(utterance.emotion for utterance in corpus)
    talkers = {label: len({u.talker for u in corpus if u.emotion == label}) for label in corpus.labels}
    rows = [[label, f"{counts[label]:,}", str(talkers[label])] for label in corpus.labels]
    total = ["all", f"{len(corpus):,}", str(len(corpus.talkers))]
    return [_about(corpus), _table([["Emotion", "Utterances", "Talkers"], *rows, total])]


def _network(config: ModelConfig) -> str:
    if config.architecture == "linear":
        return "A linear probe (logistic regression on the frames' standardised mean and deviation over time)"
    return "An adapter, pooling and an output layer"


def _chosen(facts: dict[str, int | float], config: ModelConfig) -> str:
    if config.architecture == "linear":
        return f"C, the inverse strength of the penalty ({facts['C']:g})"
    return f"the number of epochs ({facts['epochs']})"


def _scores(made: Made) -> list[str]:
    facts, found = made.facts, made.calibration
    validation = (
        f"{found.talkers} of the {len(made.corpus.talkers)} talkers chose {_chosen(facts, made.config)}, then all of "
        f"them trained the model. On the {_number(found.utterances, 'utterance')} of those who chose, UA was "
        f"{_percent(facts['validation_ua'])} and WA {_percent(facts['validation_wa'])}: a validation score, not a "
        f"test score. {made.origin}"
    ).strip()
    if (run := made.run) is None:
        return [validation, "`serein crossval` gives a test score, `serein train --scores-from` puts it here."]
    summary = summarise(run)
    pooled, intervals = summary.pooled, summary.intervals
    rows = [
        ["UA, mean of the labels' recalls", _percent(pooled.ua), ends(intervals.ua)],
        ["WA, plain accuracy", _percent(pooled.wa), ends(intervals.wa)],
        ["Macro F1", _percent(pooled.macro_f1), ends(intervals.macro_f1)],
    ]
    beside = [f"Remarks: {', '.join(said)}."] if (said := remarks(run)) else []
    beside += _shared(run.leaks)
    return [
        "Cross-validation of the same settings on this corpus, so of other models than the one here. Protocol "
        f"{run.protocol.name}, hash `{run.protocol.hash}`: {run.protocol.description} "
        f"{len(run.protocol.folds)} folds, {_number(len(run.seeds), 'seed')}.",
        _table([["Score", "Value", "95 % interval over talkers, %"], *rows]),
        *beside, validation,
    ]  # fmt: skip


def _shared(leaks: Sequence[str]) -> list[str]:
    """What the parts of folds share, folds that share the same together.

    The sentences are those of `serein.corpus.protocol.Leak`; what is written otherwise is given as it is.
    """
    folds: dict[str, list[str]] = {}
    for leak in leaks:
        fold, colon, what = leak.removeprefix("fold ").partition(": ")
        folds.setdefault(what if colon else leak, []).append(fold if colon else "a fold")
    return [f"Shared between the parts of {', '.join(names)}: {what}." for what, names in folds.items()]


def _results(run: Run, corpus: Corpus) -> list[EvalResult]:
    pooled = summarise(run).pooled
    title = " and ".join(known.title for known in known_of(corpus)) if is_known(corpus) else run.corpus
    task = "; ".join(["speech emotion recognition, cross-validated with the same settings", *remarks(run)])
    metrics = [
        ("recall", "UA", pooled.ua, {"average": "macro"}),
        ("accuracy", "WA", pooled.wa, None),
        ("f1", "macro F1", pooled.macro_f1, {"average": "macro"}),
    ]
    return [
        EvalResult(
            task_type="audio-classification",
            task_name=task,
            dataset_type=run.corpus,
            dataset_name=f"{title}, protocol {run.protocol.name} ({run.protocol.hash})",
            dataset_split="test",
            metric_type=kind,
            metric_name=name,
            metric_value=round(value, 4),
            metric_args=arguments,
        )
        for kind, name, value, arguments in metrics
    ]


def _calibration(made: Made) -> list[str]:
    found, config = made.calibration, made.config
    if config.architecture == "linear":
        alike = "C: with a probe of the same C"
    else:
        members = config.model.members
        networks = "a network" if members == 1 else f"{members} averaged networks"
        alike = f"the epochs: with {networks} of the same settings and epochs"
    fitted = (
        f"Logarithms of the probabilities are divided by the temperature {config.temperature:.3f}, fitted on the "
        f"{_number(found.utterances, 'utterance')} of the {_number(found.talkers, 'talker')} who chose {alike} "
        "that had not learned from them."
    )
    unsure = f"Below a best probability of {config.abstain_below:g} it is not sure."
    if isnan(found.error_after):
        return [
            f"{fitted} Expected calibration error ({BINS} bins) without it: {found.error_before:.3f}, negative log "
            f"likelihood: {found.nll_before:.3f} nats. What it does to another talker is not known from one.",
            *([unsure] if config.abstain_below else []),
        ]
    rows = [
        [f"Expected calibration error, {BINS} bins", f"{found.error_before:.3f}", f"{found.error_after:.3f}"],
        ["Negative log likelihood, nats", f"{found.nll_before:.3f}", f"{found.nll_after:.3f}"],
    ]
    honest = '"With it": each of these talkers at the temperature that the others ask for, so not fitted on itself.'
    blocks = [fitted, _table([["", "Without it", "With it"], *rows]), honest]
    if config.abstain_below:
        blocks.append(
            f"{unsure} It was sure of {_percent(found.coverage)} of these utterances, and on them UA was "
            f"{_percent(found.ua)} and WA {_percent(found.wa)}."
        )
    return blocks


def _making(recipe: Recipe) -> list[str]:
    return ["## Recipe", f"```toml\n{recipe.to_toml().strip()}\n```"]


def _code(corpus: Corpus) -> str | list[str] | None:
    codes = list(dict.fromkeys(known.code for known in known_of(corpus))) if is_known(corpus) else []
    return codes[0] if len(codes) == 1 else codes or None


def _percent(share: float) -> str:
    return "unknown" if isnan(share) else f"{100 * share:.1f} %"


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def _list(points: Sequence[str]) -> str:
    return "\n".join(f"- {point}" for point in points)


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *rest = rows
    lines = [header, ["---"] * len(header), *rest]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |" for cells in lines)
