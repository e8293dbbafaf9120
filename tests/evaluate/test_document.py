import pytest

from serein.evaluate.document import (
    Banner,
    Cards,
    Clips,
    Code,
    Details,
    Paragraph,
    Picture,
    Section,
    Table,
    Title,
    html,
    markdown,
)

EVIL = '<script>alert("1")</script> | `x` [y](z)'
SVG = '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><g id="figure_1"><path id="m1"/></g></svg>'
BLOCKS = [
    Title(EVIL),
    Section(EVIL),
    Paragraph(EVIL),
    Banner(EVIL, EVIL),
    Cards([(EVIL, EVIL, EVIL)]),
    Table([EVIL, "n"], [[EVIL, "1"]]),
    Picture("p", SVG, EVIL),
    Details(EVIL, [Paragraph(EVIL)]),
]


@pytest.mark.parametrize("block", [*BLOCKS, Code(EVIL)], ids=lambda block: type(block).__name__)
def test_no_text_becomes_markup_in_the_page(block):
    page = html([block])
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 1


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
def test_no_text_becomes_markup_in_markdown(block):
    assert "<script" not in markdown([block])


def test_a_table_in_markdown_has_as_many_cells_in_each_line():
    lines = markdown([Table(["a", "b"], [["1 | 2", "3"], ["two\nlines", "4"]])]).splitlines()
    assert lines == ["| a | b |", "| --- | ---: |", "| 1 \\| 2 | 3 |", "| two lines | 4 |"]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("snake_case", "snake_case"),
        ("_a_ b", r"\_a\_ b"),
        ("__b__", r"\_\_b\_\_"),
        ("~~c~~", r"\~\~c\~\~"),
        ("- d", r"\- d"),
        ("12. e", r"12\. e"),
        ("# f", r"\# f"),
        ("-1.8", "-1.8"),
        ("-", r"\-"),
        ("---", r"\---"),
    ],
)
def test_marks_that_markdown_would_take_for_its_own_are_escaped(text, written):
    assert markdown([Paragraph(text)]) == written


def test_numbers_stand_to_the_right():
    page = html([Table(["name", "kind", "n"], [["a", "b", "1"]], text_columns=2)])
    assert page.count('class="number"') == 2
    assert '<td class="number">1</td>' in page


def test_a_fence_is_longer_than_any_in_the_text():
    assert markdown([Code("```\nx\n```")]) == "````\n```\nx\n```\n````"


def test_pictures_stand_inline_in_the_page_and_as_links_in_markdown():
    picture = Picture("curves", SVG, "What it shows")
    page = html([picture])
    assert '<svg xmlns="http://www.w3.org/2000/svg"><g><path id="m1"/></g></svg>' in page
    assert "<?xml" not in page
    assert 'aria-label="What it shows"' in page
    assert markdown([picture]) == "![What it shows](figures/curves.svg)"


def test_sounds_stand_inline_in_the_page_and_as_links_in_markdown():
    clips = Clips([("one", EVIL, b"RIFF"), ("two", "fine", b"RIFF")])
    page = html([clips])
    assert page.count('src="data:audio/wav;base64,UklGRg=="') == 2
    assert "<script" not in page + markdown([clips])
    assert markdown([clips]).endswith("\n- [fine](clips/two.wav)")
