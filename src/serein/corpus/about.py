"""What the corpora that serein reads are, for a model's card, and which voices are a machine's."""

from typing import NamedTuple

from serein.corpus.corpus import Corpus

SYNTHETIC = "espeak-demo"


class About(NamedTuple):
    """What a corpus is: as a sentence has it, its language with its ISO 639-1 code, its speech and its terms."""

    title: str
    language: str
    code: str
    speech: str
    terms: str


KNOWN = {
    "emodb": About("EmoDB", "German", "de", "ten acted sentences", "free for research (TU Berlin)"),
    SYNTHETIC: About(
        "serein's demo corpus", "English", "en", "a machine's voices, which say nothing about people",
        "spoken by eSpeak NG on the machine that ran `serein demo`",
    ),
    "iemocap": About(
        "IEMOCAP", "English", "en", "acted dialogues",
        "for research, on request from the University of Southern California; not to be passed on",
    ),
    "ravdess": About("RAVDESS", "English", "en", "two acted sentences", "CC BY-NC-SA 4.0"),
    "urdu": About("URDU-Dataset", "Urdu", "ur", "clips of talk shows", "for research only"),
}  # fmt: skip
"""The corpora that serein reads, and the one it makes, by the names of their releases: see docs/corpora.md."""


def known_of(corpus: Corpus) -> list[About]:
    """What is known of the releases that a corpus's utterances are of; what its table is called says nothing."""
    return [KNOWN[name] for name in corpus.releases if name in KNOWN]


def is_known(corpus: Corpus) -> bool:
    """Whether every utterance is of a release that is known."""
    return KNOWN.keys() >= set(corpus.releases)
