import json
from pathlib import Path

import cost
import pytest
import torch
import transformers

from serein.corpus.corpus import Corpus, Utterance
from serein.errors import CorpusError

pytest.importorskip("peft", reason="peft is not installed: pip install 'serein[peft]'")
COLUMNS = ["", "seconds an epoch", "peak memory, MiB", "trainable parameters", "shipped MB, float32", "float16"]


@pytest.fixture(scope="module")
def arguments(tones, tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("encoder")
    settings = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
    convolutions = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    transformers.HubertModel(transformers.HubertConfig(**settings, **convolutions)).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    table = tones.utterances[0].path.parent / "tones.csv"
    sizes = {"--layers": "1,2", "--pool": "4", "--steps": "2", "--batch-size": "4"}
    return [str(table), "--encoder", str(folder), *(word for option in sizes.items() for word in option)]


def test_every_row_has_every_column(arguments, tmp_path):
    args = cost.parse([*arguments, "--store", str(tmp_path / "frames")])
    threads = torch.get_num_threads()
    try:
        rows = {row: cost.measure(row, args) for row in cost.ROWS}
    finally:
        torch.set_num_threads(threads)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in cost.table(rows).splitlines()]
    assert lines[0] == COLUMNS
    assert [line[0] for line in lines[2:]] == list(cost.ROWS)
    assert all(len(line) == len(COLUMNS) and all(line) for line in lines[2:])

    assert all(row.seconds > 0 and row.peak_memory > 2**26 for row in rows.values())
    head = 16 * 4 + 4
    assert rows["LoRA"].trainable == rows["LoRA"].shipped == 3 * 2 * 8 * (16 + 16) + head
    assert rows["full fine-tuning"].trainable > rows["LoRA"].trainable
    adapter, tuned = rows["serein: adapter, without labels"], rows["serein: fine-tuning"]
    assert adapter.shipped == adapter.trainable + 2 * 2 * 16  # the front end's mean and deviation
    assert tuned.trainable > adapter.trainable


def test_a_row_alone_is_printed_for_the_process_that_asked(arguments, settings_kept, capsys):
    cost.main([*arguments, "--row", "LoRA"])
    assert json.loads(capsys.readouterr().out).keys() == {"seconds", "peak_memory", "trainable", "shipped"}


def test_steps_after_the_first_set_the_pace_and_the_rest_of_the_corpus_counts():
    clock = cost.Clock()
    clock.stamps = [100.0, 102.0, 106.0]  # the first step ended at 100; two more took 6 s together
    assert clock.seconds() == 9.0
    clips = [Utterance(str(n), Path("x.wav"), "F", "sad", seconds=float(n)) for n in (1, 2, 3, 4)]
    drawn, scale = cost.sample(Corpus("c", tuple(clips)), 2)
    assert len(drawn) == 2
    assert scale == 10 / sum(utterance.seconds for utterance in drawn)


def test_frames_that_the_sample_lacks_are_added_to_the_peak(monkeypatch):
    monkeypatch.setattr(cost, "peak_memory_bytes", lambda device: 1000)
    clock = cost.Clock()
    clock.stamps = [0.0, 1.0]
    row = cost._on_frames(torch.nn.Linear(2, 1), 50, clock, 3.0)
    assert (row.seconds, row.peak_memory, row.trainable, row.shipped) == (6.0, 1100, 3, 3)


def test_corpora_that_cannot_be_measured(arguments):
    unknown = Corpus("c", (Utterance("a", Path("a.wav"), "F", "sad"),))
    with pytest.raises(CorpusError, match="lengths are missing"):
        cost.sample(unknown, 1)
    with pytest.raises(CorpusError, match="no two batches"):
        cost.measure("LoRA", cost.parse([*arguments, "--batch-size", "500", "--threads", str(torch.get_num_threads())]))


def test_hubert_large_is_counted_as_by_hand():
    convolutions = (
        512 * 10 + 4 * 512 * 512 * 3 + 2 * 512 * 512 * 2 + 7 * 3 * 512
    )  # bias, and gain and shift of the norms
    projection = 2 * 512 + 512 * 1024 + 1024
    positions = 1024 * 64 * 128 + 128 + 1024  # grouped by 16, with weight norm
    block = 4 * (1024 * 1024 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 2 * 2 * 1024
    head = 1024 * 4 + 4
    rows = cost.hubert_large(4, layers=1, pool=2)
    whole = convolutions + projection + positions + 2 * 1024 + 24 * block + head
    assert rows["full fine-tuning"].trainable == rows["full fine-tuning"].shipped == whole
    assert rows["LoRA"].shipped == 24 * 2 * 8 * (1024 + 1024) + head
    assert "| full fine-tuning |  |  | 315," in cost.table(rows)
    adapter = rows["serein: adapter, without labels"]
    assert adapter.trainable < whole / 40
    assert adapter.shipped == adapter.trainable + 2 * 1024
