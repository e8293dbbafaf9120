from dataclasses import replace
from pathlib import Path

import pytest
import torch

from serein.corpus.protocol import Fold
from serein.errors import StoreError
from serein.frames.batches import FrameArray
from serein.model import EncoderDescription, ModelConfig
from serein.nn.transformer import WAPTransformer
from serein.recipe import Recipe
from serein.train.task import Task, logits_over_views, mean_over_views, scores_of_logits, timed

# 30 utterances of the corpus: 20 to train (12 of class 0, 8 of class 1), 6 to validate, 4 to test.
LABELS = [0] * 12 + [1] * 8 + [0] * 4 + [1] * 2 + [0, 0, 1, 1]
IDS = [f"u{number}" for number in range(30)]
FOLD = Fold("f", tuple(IDS[:20]), tuple(IDS[20:26]), tuple(IDS[26:]))


def task_of(*changes: str, views: int = 1, others: int = 0, seed: int = 0, fold: Fold = FOLD, **more) -> Task:
    recipe = Recipe.from_toml("", list(changes))
    ids = [f"{name}@{view}" if view else name for view in range(views) for name in IDS]
    ids += [f"other/0/x{number}" for number in range(others)]
    lengths = torch.full((len(ids),), 2)
    array = FrameArray(tuple(ids), torch.zeros(2 * len(ids), 1, 3).half(), lengths, 50.0)
    encoder = EncoderDescription(
        name="e", revision="", fingerprint="", layers=(0,), width=3, settings={}, pool=1, frame_rate=50.0
    )
    config = ModelConfig(
        architecture="classifier", model=recipe.model, encoder=encoder, max_frames=9, labels=("angry", "sad")
    )
    labels = torch.tensor(LABELS * views + [-1] * others)
    elsewhere = (torch.arange(30 * views, len(ids)),) if others else ()
    facts = {"folder": Path("nowhere"), "views": views, "elsewhere": elsewhere} | more
    return Task(array, labels, torch.arange(len(ids)), fold, config, recipe, seed, **facts)


@pytest.mark.parametrize("others", [0, 7])
def test_views_stand_a_whole_corpus_further_on_whatever_follows(others):
    task = task_of(views=3, others=others)
    chosen = torch.tensor([4, 29])
    assert task.with_views(chosen).tolist() == [4, 29, 34, 59, 64, 89]
    assert [task.array.ids[i] for i in task.with_views(chosen)] == ["u4", "u29", "u4@1", "u29@1", "u4@2", "u29@2"]
    assert task.with_views(chosen[:0]).tolist() == []


def test_without_views_the_utterances_are_themselves():
    assert task_of(others=5).with_views(torch.tensor([3, 1])).tolist() == [3, 1]


def test_the_parts_are_the_folds_and_never_views():
    train, validation, test = task_of(views=2, others=3).parts()
    assert (train.tolist(), validation.tolist(), test.tolist()) == (
        list(range(20)), list(range(20, 26)), list(range(26, 30)),
    )  # fmt: skip


def test_all_labels_may_be_used_unless_the_recipe_says_otherwise():
    task = task_of()
    assert task.labelled().equal(task.parts().train)
    assert task.known().tolist() == list(range(26))


def counts(indices: torch.Tensor) -> list[int]:
    return torch.tensor(LABELS)[indices].bincount(minlength=2).tolist()


@pytest.mark.parametrize(
    ("share", "labelled", "known"),
    [
        (0.5, [6, 4], [6 + 2, 4 + 1]),
        (0.25, [3, 2], [3 + 1, 2 + 1]),
        (0.1, [1, 1], [1 + 1, 1 + 1]),  # 1.2 and 0.8, then 0.4 and 0.2: nothing falls below one
        (0.001, [1, 1], [1 + 1, 1 + 1]),
    ],
)
def test_a_share_of_the_labels_is_that_share_of_each_class_and_at_least_one(share, labelled, known):
    task = task_of(f"finetune.label_share={share}")
    assert counts(task.labelled()) == labelled
    assert counts(task.known()) == known
    assert set(task.labelled().tolist()) <= set(range(20))
    assert set(task.known().tolist()) <= set(range(26))
    assert len(task.known().unique()) == len(task.known())


def test_the_refit_uses_no_training_label_that_the_first_training_might_not():
    for seed in range(5):
        task = task_of("finetune.label_share=0.25", seed=seed)
        known = set(task.known().tolist())
        assert known & set(range(20)) == set(task.labelled().tolist())


def test_which_labels_are_used_is_a_function_of_the_seed_and_the_fold():
    first, again, other = (task_of("finetune.label_share=0.5", seed=seed) for seed in (3, 3, 4))
    elsewhere = task_of("finetune.label_share=0.5", seed=3, fold=replace(FOLD, name="another"))
    assert set(first.labelled().tolist()) != set(elsewhere.labelled().tolist())
    assert first.labelled().equal(again.labelled())
    assert first.known().equal(again.known())
    assert set(first.labelled().tolist()) != set(other.labelled().tolist())


def test_a_smaller_share_of_labels_leaves_the_judges_whole():
    task = task_of("finetune.label_share=0.1")
    assert task.parts().validation.tolist() == list(range(20, 26))


def test_an_oracle_is_known_by_its_validation_and_keeps_it_out_of_the_refit():
    oracle = task_of(fold=replace(FOLD, validation=FOLD.test))
    assert oracle.oracle
    assert not task_of().oracle
    assert oracle.known().equal(oracle.parts().train)
    fewer = replace(oracle, recipe=Recipe.from_toml("", ["finetune.label_share=0.25"]))
    assert fewer.known().equal(fewer.labelled())


def test_an_oracle_is_one_in_whatever_order_its_utterances_stand():
    assert task_of(fold=replace(FOLD, validation=FOLD.test[::-1])).oracle


def test_a_checkpoint_of_other_frames_settings_or_seed_is_not_continued(tmp_path):
    task = task_of(views=2, others=2, folder=tmp_path)
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    task.checkpoint("finetune").save(module, optimizer, 5, [])
    assert (tmp_path / "finetune.checkpoint.safetensors").exists()
    assert task.checkpoint("finetune").restore(module, optimizer)[0] == 5
    renamed = tuple(name.replace("@1", "@0.9") for name in task.array.ids)
    elsewhere = tuple(name.replace("other", "another") for name in task.array.ids)
    for other in (
        replace(task, array=replace(task.array, ids=renamed)),
        replace(task, array=replace(task.array, ids=elsewhere)),
        replace(task, seed=1),
        replace(task, recipe=Recipe.from_toml("", ["finetune.epochs=7"])),
        replace(task, labels=task.labels.flip(0)),
        replace(task, fold=replace(FOLD, validation=FOLD.test)),
        replace(task, frames=("extracted again",)),
    ):
        with pytest.raises(StoreError, match="left by a training with other settings"):
            other.checkpoint("finetune").restore(module, optimizer)


def test_an_adapter_is_shared_by_tasks_that_hear_the_same_frames_alone(tmp_path):
    task = task_of(folder=tmp_path, frames=("0123",), shared=tmp_path)
    heard = torch.tensor([0, 1])
    shared = task.adapter_checkpoint(heard).path
    assert replace(task, labels=task.labels.flip(0)).adapter_checkpoint(heard).path == shared
    assert replace(task, frames=("4567",)).adapter_checkpoint(heard).path != shared
    assert task.adapter_checkpoint(heard[:1]).path != shared


@pytest.mark.parametrize(
    "change",
    ["adapt.temperature=0.5", "adapt.epochs=7", "model.width=192", "model.layer_mix=joined",
     "model.talker_statistics=z-norm"],
)  # fmt: skip
def test_an_adapter_is_not_shared_by_tasks_that_train_another_one(tmp_path, change):
    def path(*changes: str, seed: int = 0) -> Path:
        return task_of(*changes, seed=seed, shared=tmp_path).adapter_checkpoint(torch.tensor([0, 1])).path

    assert path(change) != path()
    assert path(seed=1) != path()
    assert path("finetune.epochs=7") == path()


def test_what_another_torch_trained_is_not_shared(tmp_path, monkeypatch):
    task, heard = task_of(folder=tmp_path, shared=tmp_path), torch.tensor([0, 1])

    def paths() -> set[Path]:
        return {task.adapter_checkpoint(heard).path, task.checkpoint("finetune", share=True).path}

    before = paths()
    assert before == paths()
    monkeypatch.setattr(torch, "__version__", "1.0")
    assert not before & paths()


def test_a_checkpoint_that_began_with_another_adapter_is_not_continued():
    torch.manual_seed(0)
    adapters = [WAPTransformer(3, 1, width=4, blocks=1, heads=2, max_frames=9) for _ in range(2)]
    purposes = {task_of(pretrained=adapter).checkpoint("finetune").purpose for adapter in (None, *adapters)}
    assert len(purposes) == 3


def test_no_two_committees_share_a_member():
    committees = [task_of("model.members=3", seed=seed).member_seeds() for seed in range(5)]
    assert [members[0] for members in committees] == list(range(5))
    assert len({seed for members in committees for seed in members}) == 5 * 3


def test_scores_of_logits_by_hand():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 1.0]])
    # class a: 1 of 2 right; class b: 1 of 2 right... and with three of a, 2 of 3
    assert scores_of_logits(logits, torch.tensor([0, 0, 1, 1]), ("a", "b")).ua == pytest.approx(0.5)
    scores = scores_of_logits(logits, torch.tensor([0, 0, 0, 1]), ("a", "b"))
    assert (scores.ua, scores.wa) == (pytest.approx((2 / 3 + 1) / 2), 0.75)


def test_a_stage_notes_its_wall_time():
    seconds: dict[str, float] = {}
    with timed(seconds, "test"):
        pass
    assert set(seconds) == {"test"}
    assert seconds["test"] >= 0


def test_rows_of_several_views_are_averaged_utterance_by_utterance():
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.2, 0.8]])  # utterances a, b, and again a, b
    assert torch.allclose(mean_over_views(rows, 2), torch.tensor([[0.75, 0.25], [0.1, 0.9]]))
    assert torch.equal(mean_over_views(rows, 4), rows)
    assert mean_over_views(torch.empty(0, 2), 0).shape == (0, 2)


def test_logits_of_several_views_are_those_of_the_mean_probability_and_of_one_view_themselves():
    rows = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8], [0.1, 0.9]])
    logits = rows.clamp(min=1e-9).log() + 3
    assert torch.allclose(logits_over_views(logits, 2).softmax(1), torch.tensor([[0.6, 0.4], [0.3, 0.7]]), atol=1e-6)
    assert logits_over_views(logits, 4) is logits


def test_a_recording_is_judged_at_its_own_speed_unless_the_recipe_says_at_all():
    chosen = torch.tensor([4, 29])
    assert task_of(views=3).judged(chosen).tolist() == [4, 29]
    assert task_of("model.test_views=true", views=3, others=2).judged(chosen).tolist() == [4, 29, 34, 59, 64, 89]


@pytest.mark.parametrize("changes", [[], ["finetune.label_share=0.25"]])
def test_only_talkers_that_are_trained_on_have_a_number_of_their_own(changes):
    task = task_of(*changes, views=2, others=3)
    numbers, known = task.trained_talkers(), task.with_views(task.known())
    assert sorted(numbers[known].tolist()) == list(range(len(known)))  # here everybody says one thing
    heard = set(known.tolist())
    assert {numbers[place].item() for place in range(len(task.array.ids)) if place not in heard} == {0}
    two = replace(task, talkers=torch.arange(len(task.array.ids)) % 2 + 5)
    assert two.trained_talkers()[known].equal(known % 2)


@pytest.mark.parametrize(
    ("changes", "views", "epochs"),
    [
        ([], 1, 6),
        (["finetune.min_steps=30"], 1, 6),  # 20 utterances are 5 steps of 4: 6 epochs have them
        (["finetune.min_steps=31"], 1, 7),
        (["finetune.min_steps=60"], 1, 12),
        (["finetune.min_steps=60"], 2, 6),  # at two speeds an epoch has 10 steps
        (["finetune.min_steps=60", "finetune.label_share=0.5"], 1, 20),  # of 10 utterances 3
    ],
)
def test_few_utterances_get_more_epochs(changes, views, epochs):
    task = task_of("finetune.epochs=6", "finetune.batch_size=4", *changes, views=views)
    assert task.finetuning().finetune.epochs == epochs
    assert task.finetuning().adapt == task.recipe.adapt
