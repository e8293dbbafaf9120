"""Studies: several systems, recipes or protocols on one corpus, a run folder each."""

import re
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from serein.corpus.corpus import Corpus
from serein.corpus.inflation import HONEST, inflations
from serein.corpus.protocol import Protocol
from serein.errors import UsageError
from serein.evaluate.study import Kind, save_study
from serein.frames.store import FrameStore
from serein.progress import Report, quiet
from serein.recipe import Recipe, Section
from serein.train.crossval import check_settings, cross_validate

SHARED = ".shared"


@dataclass(frozen=True)
class Variant:
    """One row of a study.

    Attributes:
        name: in tables; in small letters and hyphens it names the run's folder.
        system: a key of :data:`serein.train.systems.SYSTEMS`.
        recipe: the settings.
        protocol: the folds.
    """

    name: str
    system: str
    recipe: Recipe
    protocol: Protocol

    @property
    def folder(self) -> str:
        """The run's folder in the study's: ``K = 128`` is in ``k-128``."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-.")


class Change(Section):
    """What a variant of an ablation changes in the base recipe."""

    name: str = Field(min_length=1)
    set: tuple[str, ...] = ()


class Ablation(Section):
    """An ablation as its file has it: ``title``, ``base``, ``set``, ``system`` and ``[[variant]]`` tables.

    The base is a recipe's path relative to the file, and ``set`` what all variants change in it; the first variant is
    the one that the others are held against.
    """

    title: str
    base: str
    set: tuple[str, ...] = ()
    system: str = "adapter"
    variant: tuple[Change, ...] = Field(min_length=2)


def run_study(
    store: FrameStore,
    corpus: Corpus,
    variants: Sequence[Variant],
    folder: str | Path,
    *,
    kind: Kind,
    title: str,
    seeds: Sequence[int] = (0,),
    views: Sequence[FrameStore] = (),
    unlabelled: Sequence[FrameStore] = (),
    beside: Sequence[FrameStore] = (),
    command: str = "",
    report: Report = quiet,
) -> Path:
    """Cross-validate each variant, or continue where an earlier call stopped; all get the same seeds and material.

    The linear probe on all labels draws nothing, so it runs with the first seed only. Variants that train the same
    adapter without labels, or LPMN by the same recipe, share it; what they shared is deleted when the study is done.

    Leaves ``study.json`` and a run folder for each variant; see `serein.train.crossval.cross_validate` for the
    arguments that have no line here. `serein.evaluate.study.write_study` makes the page.

    Args:
        store: the frames.
        corpus: the labels.
        variants: the first is the one that the others are held against.
        folder: the study.
        kind: what was varied.
        title: the page's.
        seeds: repetitions of each fold.
        views: the same corpus at other speeds.
        unlabelled: other corpora for adapter training.
        beside: log-mel frames of the corpus and of each view, for Co-att.
        command: what the user typed.
        report: told of every step, and at stage ``study`` of every variant done.

    Raises:
        UsageError: fewer than two variants, two of one folder, settings that one of them cannot be trained with, or a
            folder that holds another study.
        CorpusError, StoreError: see `serein.train.crossval.cross_validate`.
    """
    folder = Path(folder)
    _check(variants, views, unlabelled, beside)
    save_study(folder, kind, title, [(variant.name, folder / variant.folder) for variant in variants])
    for number, variant in enumerate(variants, start=1):
        cross_validate(
            store, corpus, variant.protocol, folder / variant.folder, variant.recipe,
            system=variant.system, seeds=seeds[:1] if _draws_nothing(variant) else seeds, views=views,
            unlabelled=unlabelled, beside=beside, shared=folder / SHARED, command=command, report=report,
        )  # fmt: skip
        report("study", number, len(variants), {"variant": variant.name})
    shutil.rmtree(folder / SHARED, ignore_errors=True)
    return folder


def benchmark_variants(systems: Sequence[str], recipe: Recipe, protocol: Protocol) -> list[Variant]:
    """A variant a system; ``adapter:none`` is the adapter with ``adapt.data = "none"``, and so on.

    Raises:
        UsageError: a word that ``adapt.data`` does not know, or behind another system than the adapter.
    """
    variants = []
    for name in systems:
        system, colon, data = name.partition(":")
        if colon and system != "adapter":
            raise UsageError(f"system {name!r}: only the adapter is trained without labels, as in adapter:inductive")
        variants.append(Variant(name, system, changed(recipe, [f"adapt.data={data}"] if colon else []), protocol))
    return variants


def read_ablation(path: str | Path) -> Ablation:
    """Read an ablation's file.

    Raises:
        UsageError: it cannot be read, is no TOML, or has an unknown or a missing key; says which.
    """
    try:
        return Ablation.model_validate(tomllib.loads(Path(path).read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise UsageError(f"{path}: ablation cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: ablation cannot be read: it is not UTF-8 ({error.reason})") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: is not TOML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise UsageError(
            f"{path}: {faults} (keys: {', '.join(Ablation.model_fields)}; see recipes/ablation)"
        ) from error


def ablation_variants(path: str | Path, protocol: Protocol, changes: Sequence[str] = ()) -> list[Variant]:
    """The variants of an ablation's file.

    Args:
        path: the file.
        protocol: the folds of all.
        changes: ``table.key=value`` each, for all variants, after what the file sets for all; what a variant sets
            itself comes last.

    Raises:
        UsageError: see :func:`read_ablation` and :meth:`serein.recipe.Recipe.from_toml`.
    """
    ablation = read_ablation(path)
    base = Path(path).parent / ablation.base
    variants = []
    for change in ablation.variant:
        try:
            recipe = Recipe.read(base, [*ablation.set, *changes, *change.set])
        except UsageError as error:
            raise UsageError(f"{path}, variant {change.name!r}: {error}") from error
        variants.append(Variant(change.name, ablation.system, recipe, protocol))
    return variants


def inflation_variants(protocol: Protocol, corpus: Corpus, system: str, recipe: Recipe) -> list[Variant]:
    """A variant a protocol of `serein.corpus.inflation.inflations`.

    And the transductive adapter on honest folds where the recipe's is inductive, for beside another the difference
    would not be that of hearing the test talkers alone.

    Raises:
        UsageError: by the recipe even the honest variant hears the test talkers: its adapter, or its statistics.
        CorpusError: see `serein.corpus.inflation.inflations`.
    """
    if recipe.model.talker_statistics != "none":
        raise UsageError(
            f'model.talker_statistics = "{recipe.model.talker_statistics}": it hears the test talkers in every '
            "variant, so none would be honest; leave it none"
        )
    if system == "adapter" and recipe.adapt.data == "transductive":
        raise UsageError('adapt.data = "transductive": that is one of the variants; set inductive for the others')
    variants = [Variant(name, system, recipe, made) for name, made in inflations(protocol, corpus).items()]
    if system == "adapter" and recipe.adapt.data == "inductive":
        transductive = changed(recipe, ["adapt.data=transductive"])
        variants.append(Variant(f"{HONEST}, transductive", system, transductive, protocol))
    return variants


def changed(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """The recipe with ``table.key=value`` changes on top."""
    return Recipe.from_toml(recipe.to_toml(), changes)


def _draws_nothing(variant: Variant) -> bool:
    return variant.system == "linear" and variant.recipe.finetune.label_share == 1


def _check(
    variants: Sequence[Variant],
    views: Sequence[FrameStore],
    unlabelled: Sequence[FrameStore],
    beside: Sequence[FrameStore],
) -> None:
    if len(variants) < 2:
        raise UsageError(f"a study sets several variants side by side, and here are {len(variants)}: name two or more")
    for variant in variants:
        check_settings(variant.system, variant.recipe, views, unlabelled, beside)
    folders = [variant.folder for variant in variants]
    for variant in variants:
        if not variant.folder or folders.count(variant.folder) > 1:
            raise UsageError(f"variant {variant.name!r}: its folder would be {variant.folder!r}, which must be its own")
