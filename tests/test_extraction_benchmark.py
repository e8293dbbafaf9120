import json

import extraction
import pytest
import transformers

pytestmark = pytest.mark.usefixtures("settings_kept")
WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
CONVOLUTIONS = {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
TINY_WHISPER = {
    "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48,
    "decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "vocab_size": 12,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
}  # fmt: skip


def test_all_sides_run_on_tiny_encoders_and_agree(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(extraction, "HUBERT_LARGE", {**WIDTHS, **CONVOLUTIONS, **STABLE})
    monkeypatch.setattr(extraction, "WHISPER_BASE", TINY_WHISPER)
    monkeypatch.setattr(extraction.measure, "peaks", lambda threads: {"fp32": 50.0, "bf16": 100.0})
    extraction.main(["--quick", "--utterances", "2", "--results", str(tmp_path)])
    facts = json.loads((tmp_path / "quick" / "extraction.json").read_text())
    assert facts["utterances"] == 2
    assert facts["audio_seconds"] >= 4
    assert len(facts["hubert"]) == 7
    assert len(facts["whisper"]) == 5
    for sides in (facts["hubert"], facts["whisper"]):
        assert next(iter(sides.values()))["times_the_first"]["median"] == 1
        for name, fact in sides.items():
            assert fact["audio_seconds_a_second"]["median"] > 0
            if name.startswith("serein") and "cut" not in name:
                assert min(fact["cosines"].values()) > 0.999
    assert set(facts["hubert"]["serein, all layers, bfloat16"]["cosines"]) == {"1", "2"}
    goals = facts["goals"]
    assert len(goals) == 5
    assert goals["layer 1, bfloat16: times file by file"]["at least"] == 4.2
    assert all(goal["met"] == (goal["is"] >= goal["at least"]) for goal in goals.values())
    printed = capsys.readouterr().out
    assert all(name in printed for name in facts["hubert"])
    assert "s3prl is" in printed


def test_operations_by_hand():
    config = transformers.HubertConfig(**WIDTHS, **CONVOLUTIONS)
    # one frame from 400 samples: the convolutions give 79, 39, 19, 9, 4, 2 and 1 frames
    convolutions = 79 * 16 * 10 + (39 + 19 + 9 + 4) * 16 * 16 * 3 + (2 + 1) * 16 * 16 * 2
    positions = 32 * 8 * 16
    block = 4 * 32 * 32 + 2 * 32 * 48 + 2 * 32
    assert extraction.operations(config, 400, 2) == 2 * (convolutions + 16 * 32 + positions + 2 * block)


def test_hubert_large_needs_what_was_counted_by_hand():
    config = transformers.HubertConfig(**extraction.HUBERT_LARGE)
    per_second = extraction.operations(config, 10 * 16_000, 24) / 10
    assert per_second == pytest.approx(38.5e9, rel=0.01)
