import json

import adapter_step
import pytest
import torch

pytestmark = pytest.mark.usefixtures("settings_kept")
TINY = {"width": 12, "blocks": 2, "heads": 2}


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(adapter_step, "PAPER", TINY)
    monkeypatch.setattr(adapter_step, "SMALL", TINY)
    monkeypatch.setattr(adapter_step, "INPUT", 16)
    return adapter_step


def test_both_sides_train_the_same_network_on_the_same_frames(tiny):
    found = tiny.curves(torch.randint(10, 30, (20,), generator=torch.Generator().manual_seed(0)).repeat(3), 12)
    assert found["serein, float32"]["from plain"]["highest"] < 1e-3
    assert found["serein, bfloat16"]["from plain"]["highest"] < 0.05
    assert 0 < found["plain, nudged, float32"]["from plain"]["highest"] < 1e-3
    assert len(set(found["serein, float32"]["losses"])) == 12


@pytest.mark.parametrize("lengths", [[20, 20, 20], [20, 17, 14]])
def test_work_is_what_the_flop_counter_counts_padding_included(tiny, lengths):
    array = tiny.noise(torch.tensor(lengths), 16)
    both = tiny.Sides(array, TINY, 5, "bfloat16", 1)
    with tiny.FlopCounterMode(display=False) as counter:
        both.serein(torch.arange(3))
    hidden = [round(0.4 * length) for length in lengths]
    assert counter.get_total_flops() == tiny.flops(lengths, hidden, TINY, 5, padded_to=20)
    useful = tiny.flops(lengths, hidden, TINY, 5)
    assert tiny.wasted([(20, lengths)], 5) == pytest.approx(1 - useful / counter.get_total_flops())


def test_the_command_writes_all_facts(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tiny, "table_lengths", lambda path: torch.arange(5, 85))
    monkeypatch.setattr(tiny.measure, "peaks", lambda threads: {"fp32": 1.0, "bf16": 2.0})
    whole = tiny.pace
    monkeypatch.setattr(tiny, "pace", lambda lengths, size, repeats: whole(lengths, size, repeats, attributes=8))
    tiny.main(["--quick", "--batch-size", "8", "--steps", "2", "--results", str(tmp_path)])
    facts = json.loads((tmp_path / "quick" / "adapter_step.json").read_text())
    assert len(facts["sides"]) == 6
    assert all(row["frames_a_second"] > 0 for row in facts["sides"].values())
    assert set(facts["share_of_linear_peak"]) == {"float32", "bfloat16"}
    assert 0 <= facts["padding"]["share of the work"] <= facts["padding"]["share of the frames"] < 0.2
    assert facts["goals"]["padding: share of the work"]["is"] == facts["padding"]["share of the work"]
    assert "bfloat16: losses from plain" in capsys.readouterr().out


def test_lengths_come_from_a_table_or_from_the_quantiles(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("utterance,seconds\na,2.0\nb,0.01\n")
    assert adapter_step.table_lengths(table).tolist() == [100, 1]
    assert len(adapter_step.table_lengths(None)) == 5531
