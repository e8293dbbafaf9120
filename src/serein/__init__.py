"""serein: adapt a frozen speech encoder to speech emotion recognition with a light adapter, and judge it honestly.

Public names are imported when they are first used, so that ``import serein`` stays quick.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serein.corpus.corpus import Corpus, Utterance
    from serein.corpus.protocol import Fold, Protocol
    from serein.corpus.splits import make_protocol
    from serein.evaluate.report import write_report
    from serein.frames.audio import load_audio
    from serein.frames.batches import FrameArray, FrameBatch
    from serein.frames.encoder import SpeechEncoder, load_encoder
    from serein.frames.extract import extract
    from serein.frames.sources import Recording
    from serein.frames.store import FrameStore
    from serein.nn.attributes import LocalAttributes
    from serein.nn.classifier import EmotionClassifier
    from serein.nn.distillation import SelfDistillation
    from serein.nn.pooling import AttentiveStatisticsPooling
    from serein.nn.transformer import WAPTransformer
    from serein.recipe import Recipe
    from serein.recognizer import EmotionRecognizer
    from serein.train.crossval import cross_validate

__version__ = version("serein")

_MODULES = {
    "Corpus": "corpus.corpus",
    "Utterance": "corpus.corpus",
    "Fold": "corpus.protocol",
    "Protocol": "corpus.protocol",
    "make_protocol": "corpus.splits",
    "write_report": "evaluate.report",
    "load_audio": "frames.audio",
    "FrameArray": "frames.batches",
    "FrameBatch": "frames.batches",
    "SpeechEncoder": "frames.encoder",
    "load_encoder": "frames.encoder",
    "extract": "frames.extract",
    "Recording": "frames.sources",
    "FrameStore": "frames.store",
    "LocalAttributes": "nn.attributes",
    "EmotionClassifier": "nn.classifier",
    "SelfDistillation": "nn.distillation",
    "AttentiveStatisticsPooling": "nn.pooling",
    "WAPTransformer": "nn.transformer",
    "Recipe": "recipe",
    "EmotionRecognizer": "recognizer",
    "cross_validate": "train.crossval",
}

__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'serein' has no attribute {name!r}")
    value = getattr(import_module(f"serein.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
