import by_length

from serein.corpus.splits import make_protocol
from serein.evaluate.predictions import Prediction
from serein.train.crossval import cross_validate


def said(name: str, truth: str, prediction: str) -> Prediction:
    return Prediction(name, "t", "fold", 0, truth, prediction, (0.5, 0.5))


def test_each_quarter_is_held_against_its_own_truth():
    lengths = {f"u{number}": 10 * (number + 1) for number in range(8)}
    answers = ["ab", "aa", "ab", "ba", "aa", "bb", "aa", "ba"]  # truth, prediction
    rows = [said(f"u{number}", *answer) for number, answer in enumerate(answers)]
    # the second and third quarter's predictions have the true shares, though the second has none right
    assert by_length.by_length(rows, lengths, "ab") == [(0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (0.5, 0.5)]


def test_the_table_has_a_row_a_run(tone_store, tmp_path, capsys, tiny_recipe):
    corpus = tone_store.corpus()
    run = cross_validate(
        tone_store, corpus, make_protocol("sessions", corpus), tmp_path / "r", tiny_recipe, system="linear"
    )
    by_length.main([str(tone_store.folder), str(run)])
    header, _, row = capsys.readouterr().out.splitlines()
    assert header.count("|") == row.count("|") == 10
    assert row.startswith("| r | ")
