import importlib.util
import json
import shlex
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
import results

from serein.errors import UsageError
from serein.evaluate.ensemble import average
from serein.evaluate.imported import import_predictions
from serein.evaluate.runs import load_run
from serein.evaluate.study import load_study, save_study
from serein.evaluate.study_page import table

HERE = Path(__file__).resolve().parent


def load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fixtures = load("evaluate_fixtures", HERE / "evaluate" / "conftest.py")
write_run = fixtures.write_run
COMMAND = (
    "serein benchmark /home/me/frames/{corpus} --view /home/me/{corpus}-0.9 --protocol emobox --folds-file=/data/f.json"
    " --recipe /home/me/recipes/ablation/a.toml --set speed.device=cpu --map a/b=c --seeds 2 -o /home/me/out/{corpus}"
)
ENCODER = {"name": "/home/me/models/whisper", "revision": "", "layers": [2, 3], "frame_rate": 12.5, "settings": {}}


def make_study(folder: Path, corpus: str = "toy", kind: str = "benchmark", title: str | None = None, **facts) -> Path:
    """A good system, a bad one, and one like the first, under protocol emobox."""
    protocol = replace(fixtures.make_protocol(), name="emobox", corpus=corpus)
    facts = {
        "command": COMMAND.format(corpus=corpus),
        "corpus": corpus,
        "encoder": ENCODER,
        "protocol": protocol,
    } | facts
    chances = {"good": 0.95, "bad": 0.2, "alike": 0.93}
    runs = [
        (name, write_run(folder / name, accuracy=chance, random_seed=seed, **facts))
        for seed, (name, chance) in enumerate(chances.items())
    ]
    save_study(folder, kind, title or f"Systems on {corpus}, protocol emobox", runs)
    return folder


@pytest.fixture(scope="module")
def mine(tmp_path_factory) -> Path:
    """For tests that change nothing in it."""
    return make_study(tmp_path_factory.mktemp("studies") / "mine")


def page_of(tmp_path: Path, *studies: Path) -> str:
    results.write_page(studies, tmp_path / "docs" / "results.md")
    return (tmp_path / "docs" / "results.md").read_text(encoding="utf-8")


def test_the_command_remakes_the_study_and_names_no_place(tmp_path, mine):
    page = page_of(tmp_path, mine)
    assert (
        "```\nserein benchmark toy --view toy-0.9 --protocol emobox --folds-file FOLDS --recipe recipes/ablation/a.toml"
        " --set speed.device=cpu --map a/b=c --seeds 2 -o studies/mine\n```"
    ) in page
    assert "/home" not in page
    assert str(mine.parent) not in page
    assert "Encoder whisper, layers 2, 3, 12.5 frames a second." in page


def test_scores_are_the_studys_and_the_facts_stand_above(tmp_path, mine):
    study = load_study(mine)
    page = page_of(tmp_path, mine)
    lines = [unescape(line.replace("\\", "")) for line in page.splitlines()]
    for row in table(study).rows:
        assert f"| {' | '.join(row)} |" in lines
    facts = f"Corpus toy, protocol emobox ({study.rows[0].run.protocol.hash}): 72 test utterances of 6 talkers; "
    assert facts + "training seeds 0, 1." in page
    assert page.index(facts) < page.index("| good |")


def test_each_difference_has_its_sentence(tmp_path, mine):
    _, bad, alike = load_study(mine).rows
    assert bad.minus_first.holm_p < 0.05 <= alike.minus_first.holm_p
    page = page_of(tmp_path, mine)
    assert f"\n- bad is worse than good, which stands after Holm ({100 * bad.minus_first.ua:+.1f} points" in page
    assert f"\n- alike and good cannot be told apart ({100 * alike.minus_first.ua:+.1f} points of UA, p after" in page
    better = replace(bad, minus_first=replace(bad.minus_first, ua=0.1))
    assert results.verdict(better, "good", "0.001").startswith("bad is better than good, which stands after Holm")
    unknown = replace(bad, minus_first=replace(bad.minus_first, holm_p=float("nan")))
    assert results.verdict(better, "good", "0.001", inflation=True).startswith("bad scores higher than good (")
    assert "nothing can be said" in results.verdict(unknown, "good", "-")
    assert "another protocol" in results.verdict(replace(bad, minus_first=None), "good", "")


def test_figures_lie_beside_the_page_and_namesakes_have_their_own(tmp_path):
    page = page_of(tmp_path, *(make_study(tmp_path / name) for name in ("a/x", "b/x", "c/x-2")))
    for name in ("x", "x-2", "x-2-2"):
        assert f"(figures/{name}.svg)" in page
        assert f"-o studies/{name}\n" in page
        svg = (tmp_path / "docs" / "figures" / f"{name}.svg").read_text()
        assert "alike" in svg
        assert "<dc:date>" not in svg
        assert str(tmp_path) not in svg
    assert {path.name for path in (tmp_path / "docs").rglob("*")} == {
        "results.md", "figures", "x.svg", "x-2.svg", "x-2-2.svg",
    }  # fmt: skip


def test_keep_leaves_other_studies_on_the_page_and_renews_those_of_the_same_title(tmp_path):
    page, figures = tmp_path / "docs" / "results.md", tmp_path / "docs" / "figures"
    first = make_study(tmp_path / "one" / "x", "ravdess", title="First")
    whole = page_of(tmp_path, first, make_study(tmp_path / "y", title="Second"))
    kept = (figures / "x.svg").read_text()
    # the same again, and a third study whose folder has the first one's name
    third = make_study(tmp_path / "two" / "x", "ravdess", title="Third")
    results.main([str(third), "-o", str(page), "--keep"])
    more = page.read_text()
    headings = [line for line in more.splitlines() if line.startswith("## ")]
    assert headings == ["## First", "## Second", "## Third", "## How to read the tables"]
    assert more.count("Whisper-large-v3") == 1
    assert more.startswith(whole[: whole.index("## How to read")].rstrip())
    assert (figures / "x.svg").read_text() == kept
    assert "-o studies/x-2\n" in more
    assert (figures / "x-2.svg").exists()
    # renewed in its place: another study under the title of the second
    renewed = make_study(tmp_path / "z" / "y", title="Second", corpus="other")
    results.main([str(renewed), "-o", str(page), "--keep"])
    last = page.read_text()
    assert [line for line in last.splitlines() if line.startswith("## ")] == headings
    assert "Corpus other, " in last
    assert "Corpus toy, " not in last
    assert "(figures/y.svg)" in last
    # without it only what is given
    assert "## First" not in page_of(tmp_path, third)
    # titles are what tells studies apart: those given, and those on the page
    page_of(tmp_path, first, make_study(tmp_path / "again", title="First"))
    before = page.read_text()
    for given in ([third], [third, make_study(tmp_path / "another", title="Third")]):
        with pytest.raises(UsageError, match="title one otherwise"):
            results.write_page(given, page, keep=True)
    assert page.read_text() == before


def test_ravdess_under_emobox_shows_what_is_published(tmp_path):
    ravdess = make_study(tmp_path / "r", "ravdess")
    page = page_of(tmp_path, ravdess)
    assert "| Whisper-large-v3 | published, not run here | 75.3 | 75.9 | 75.2 |" in page
    assert "not comparable in strictness" in page
    urdu = make_study(tmp_path / "u", "urdu")
    assert "published" not in page_of(tmp_path, urdu)
    assert page_of(tmp_path, urdu, ravdess, make_study(tmp_path / "s", "ravdess")).count("Whisper-large-v3") == 1
    other = fixtures.make_protocol(corpus="ravdess", name="talkers-3")
    assert "published" not in page_of(tmp_path, make_study(tmp_path / "t", "ravdess", protocol=other))


def test_copies_are_named_as_copies_and_urdus_talkers_are_told(tmp_path):
    page = page_of(tmp_path, make_study(tmp_path / "e", "emodb"), make_study(tmp_path / "u", "urdu"))
    assert "\n## Systems on emodb-2s, protocol emobox\n" in page
    assert "Corpus emodb-2s, " in page
    assert page.count("26 of the 29 talkers speak one emotion only") == 1
    untold = results.shareable(load_study(make_study(tmp_path / "f", "emodb", title="Heads")))
    assert untold.title == "Heads (emodb-2s)"
    assert results.shareable(untold).title == "Heads (emodb-2s)"


def test_a_study_of_runs_is_remade_run_by_run(tmp_path):
    crossval = "serein crossval /home/me/frames/ --system linear -o /home/me/runs/probe"
    single = write_run(tmp_path / "probe", command=crossval)
    folder = make_study(tmp_path / "bench")
    runs = [(f"probe (SNP) ({single})", single), (f"adapter ({folder / 'bad'})", folder / "bad")]
    save_study(tmp_path / "both", "runs", "Two of them", runs)
    study = load_study(tmp_path / "both")
    first, second, last = results.commands(study, results.Places({study.folder: "both"}))
    assert first == "serein crossval frames --system linear -o runs/probe"
    assert second.endswith("-o studies/bench")
    assert last == "serein study studies/both runs/probe studies/bench/bad --title 'Two of them'"
    assert [row.name for row in results.shareable(study).rows] == ["probe (SNP) (probe)", "adapter (bad)"]
    said = "- adapter (bad) was run under another protocol than probe (SNP) (probe): the two are not compared."
    assert said in page_of(tmp_path, study.folder)


def test_runs_of_one_name_have_rows_of_their_own(tmp_path):
    runs = [(f"adapter ({folder})", write_run(folder)) for folder in (tmp_path / "x" / "lin", tmp_path / "y" / "lin")]
    save_study(tmp_path / "both", "runs", "Both", runs)
    rows = results.shareable(load_study(tmp_path / "both")).rows
    assert [row.name for row in rows] == ["adapter (lin)", "adapter (lin)-2"]


@pytest.mark.parametrize("command", ["serein crossval benchmark", "serein --debug crossval ablate"])
def test_a_store_named_like_a_command_makes_no_study(tmp_path, command):
    run = load_run(write_run(tmp_path / "run", command=f"{command} -o runs/x"))
    assert results.Places({}).of_run(run) == "runs/run"


def test_folders_of_one_name_are_told_apart_in_the_commands(tmp_path):
    one, other = make_study(tmp_path / "a" / "heads"), make_study(tmp_path / "b" / "heads")
    runs = [("a", one / "good"), ("b", other / "good"), ("c", other / "bad")]
    save_study(tmp_path / "heads", "runs", "Both", runs)
    page = page_of(tmp_path, tmp_path / "heads", one)
    first, second, last = page.split("```")[1].strip().splitlines()
    assert first.endswith("-o studies/heads-2")
    assert second.endswith("-o studies/heads-3")
    assert (
        last == "serein study studies/heads studies/heads-2/good studies/heads-3/good studies/heads-3/bad --title Both"
    )
    assert page.split("```")[3].strip().endswith("-o studies/heads-2")


def test_a_committee_is_made_of_the_runs_that_the_page_names(tmp_path):
    bench = make_study(tmp_path / "bench")
    command = shlex.join(["serein", "ensemble", "bench/good", str(bench / "bad"), "-o", "somewhere/both"])
    both = write_run(tmp_path / "both", command=command)
    save_study(tmp_path / "all", "runs", "All", [("good", bench / "good"), ("bad", bench / "bad"), ("both", both)])
    made = page_of(tmp_path, tmp_path / "all").split("```")[1]
    assert "\nserein ensemble studies/bench/good studies/bench/bad -o runs/both\n" in made


def test_a_member_that_could_be_either_of_two_runs_is_left_as_it_was_typed(tmp_path):
    runs = [write_run(tmp_path / side / "good") for side in "ab"]
    both = write_run(tmp_path / "both", command="serein ensemble good -o both")
    save_study(tmp_path / "all", "runs", "All", [*zip("ab", runs, strict=True), ("both", both)])
    assert "\nserein ensemble good -o runs/both\n" in page_of(tmp_path, tmp_path / "all")


def test_a_run_made_in_python_has_no_command(tmp_path):
    study = make_study(tmp_path / "mine", command="")
    assert results.commands(load_study(study), results.Places({study: "mine"})) == []
    assert "```" not in page_of(tmp_path, study)


def test_an_encoder_of_the_hub_keeps_its_whole_name(tmp_path):
    run = load_run(write_run(tmp_path / "run"))
    assert results.encoders(run) == ["Encoder toy/encoder, layers 2, 3, 50 frames a second."]


def test_what_was_imported_stands_beside_the_runs(tmp_path):
    like = write_run(tmp_path / "probe", command="serein crossval f/ --system linear -o runs/probe")
    command = f"serein import /home/me/mine.csv --like {like} --name mine -o x"
    theirs = import_predictions(like / "predictions.csv", like, tmp_path / "mine", name="mine", command=command)
    save_study(tmp_path / "both", "runs", "Both", [("probe", like), ("mine", theirs)])
    page = page_of(tmp_path, tmp_path / "both")
    assert "\nserein import mine.csv --like probe --name mine -o runs/mine\n" in page
    assert page.count("Encoder toy/encoder") == 1
    nameless = import_predictions(like / "predictions.csv", like, tmp_path / "silent", name="mine")
    save_study(tmp_path / "three", "runs", "Three", [("probe", like), ("mine", nameless)])
    assert "| mine | made elsewhere |" in page_of(tmp_path, tmp_path / "three")


def test_of_a_committee_each_encoder_is_named(tmp_path):
    runs = [write_run(tmp_path / name) for name in ("one", "two")]
    facts = json.loads((runs[1] / "run.json").read_text())
    facts["encoder"] |= {"name": "other/encoder", "layers": [9]}
    (runs[1] / "run.json").write_text(json.dumps(facts))
    said = results.encoders(load_run(average(runs, tmp_path / "both")))
    assert [line.split(",")[0] for line in said] == ["Encoder toy/encoder", "Encoder other/encoder"]


@pytest.mark.parametrize("path", ["/srv/x", "~/runs/x", r"C:\runs"])
def test_where_a_path_would_get_into_the_page_nothing_is_written(tmp_path, path):
    study = make_study(tmp_path / "mine", title=f"Systems of {path}")
    with pytest.raises(UsageError, match="would hold a path of this machine"):
        page_of(tmp_path, study)
    assert not (tmp_path / "docs").exists()


def test_what_people_wrote_above_the_mark_stays_and_the_rest_is_written_anew(tmp_path, mine):
    output = tmp_path / "docs" / "results.md"
    results.main([str(mine), "-o", str(output)])
    assert output.read_text().startswith(f"# Results\n\n{results.MARK}\n\n## Systems")
    above = "# Scores\n\nBy *validation*: see [there](https://example.org/a/b)."
    output.write_text(f"{above}\n\n{results.MARK}\n\nOld scores.\n", encoding="utf-8")
    results.main([str(mine), "-o", str(output)])
    assert output.read_text().startswith(f"{above}\n\n{results.MARK}\n\n## Systems")
    assert "Old scores" not in output.read_text()


def test_a_page_without_the_mark_is_not_written_over(tmp_path, mine):
    output = tmp_path / "notes.md"
    output.write_text("mine\n")
    with pytest.raises(UsageError, match="would be written over"):
        results.write_page([mine], output)
    assert output.read_text() == "mine\n"
    assert not (tmp_path / "figures").exists()


def test_an_inflated_score_keeps_its_warning(tmp_path):
    assert "NOT TO BE QUOTED" in page_of(tmp_path, make_study(tmp_path / "mine", kind="inflation"))


def test_a_study_of_fewer_labels_has_its_curves_and_is_judged_at_each_share(tmp_path):
    protocol = replace(fixtures.make_protocol(), name="emobox")
    runs = []
    for seed, (name, share, chance) in enumerate(
        [("probe", 0.1, 0.9), ("head", 0.1, 0.2), ("probe", 1.0, 0.9), ("head", 1.0, 0.88), ("other", 0.5, 0.9)]
    ):
        run = write_run(tmp_path / str(seed), accuracy=chance, random_seed=seed, name=name, protocol=protocol)
        (run / "recipe.toml").write_text(f"[finetune]\nlabel_share = {share}\n")
        runs.append((f"{name} {share}", run))
    save_study(tmp_path / "few", "ablation", "Few labels", runs)
    page = page_of(tmp_path, tmp_path / "few")
    assert "(figures/few.svg)" in page
    assert {path.name for path in (tmp_path / "docs" / "figures").iterdir()} == {"few.svg"}
    assert "| Labels | Series | UA % |" in page
    sentences = [line for line in page.splitlines() if line.startswith("- ")]
    assert len(sentences) == 2
    assert sentences[0].startswith("- With 10 % of the labels head is worse than probe, which stands after Holm (")
    assert sentences[1].startswith("- With 100 % of the labels head and probe cannot be told apart (")
