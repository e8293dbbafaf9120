import csv
import json
import math
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from serein.recognizer import EmotionRecognizer
from serein.timeline import Timeline, Window


def until(page, true: Callable[[], bool]) -> None:
    """Playwright's own waiting evaluates text, which the page's policy forbids."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "it never came"
        page.wait_for_timeout(30)


def until_done(page, name: str) -> None:
    """The page shows the recording of this name, and not still the one before it."""

    def done() -> bool:
        return page.inner_text("#status-text").startswith("Done") and page.inner_text("#source").startswith(f"{name} ·")

    until(page, lambda: done() or page.inner_text("#error"))
    assert page.inner_text("#error") == ""


def upload(page, path: Path) -> None:
    page.set_input_files("#file", path)
    until_done(page, path.name)


def columns(page) -> list[int]:
    """How many rectangles the band has of each emotion."""
    return page.eval_on_selector_all("#band path", "paths => paths.map(p => p.getAttribute('d').split('M').length - 1)")


def download(page, button: str) -> Path:
    with page.expect_download() as started:
        page.get_by_role("button", name=button, exact=True).click()
    assert re.fullmatch(r"(two voices|recording [\d -]{19})\.(csv|json|txt|rttm|wav)", started.value.suggested_filename)
    return started.value.path()


def seconds_at(page) -> float:
    return float(page.get_attribute("#track", "aria-valuenow"))


def test_an_uploaded_recording_is_drawn_as_the_recognizer_hears_it(page, recognizer: EmotionRecognizer, recording):
    upload(page, recording)
    timeline = recognizer.timeline(recording)
    segments = timeline.segments()
    assert f"{len(timeline.windows)} windows" in page.inner_text("#status-text")
    spoken = sum(segment.end - segment.start for segment in segments if segment.label != "silence")
    assert columns(page) == [round(spoken / timeline.hop + 0.499)] * 4  # the last cell is shorter
    assert page.locator("#segments div").count() == len(segments)
    assert page.locator("#segments .silence").count() == sum(segment.label == "silence" for segment in segments) > 0
    rows = page.eval_on_selector_all("#rows tr", "rows => rows.map(row => row.cells[2].textContent)")
    assert rows == [segment.label for segment in segments]
    assert len(page.get_attribute("#loudness", "d")) > 2000
    best = recognizer(recording)[0]
    assert page.inner_text("#answer").split() == [best["label"], str(round(100 * best["score"])), "%"]


def test_other_windows_are_asked_for_and_drawn(page, recognizer, recording):
    upload(page, recording)
    page.select_option("#window", "1")
    assert page.eval_on_selector_all("#hop option:disabled", "options => options.map(o => o.value)") == ["2"]
    page.select_option("#hop", "0.25")
    count = len(recognizer.timeline(recording, 1.0, 0.25).windows)
    until(page, lambda: f"; {count} windows" in page.inner_text("#status-text"))


def test_scores_follow_the_pointer_and_a_click_seeks(page, recognizer, recording):
    upload(page, recording)
    box = page.locator("#track").bounding_box()
    timeline = recognizer.timeline(recording)
    label = timeline.segments()[-1].label
    page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 30)
    assert label in page.get_attribute("#ghost", "data-text")
    assert page.inner_text("#legend .best .name") == label
    assert seconds_at(page) == 0
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 30)
    assert seconds_at(page) == pytest.approx(timeline.seconds / 2, abs=0.1)
    assert "silence" in page.get_attribute("#track", "aria-valuetext")


def test_the_tables_are_the_servers_own(page, address, recording):
    upload(page, recording)
    for button, form in (("CSV", "csv"), ("Audacity labels", "audacity"), ("RTTM", "rttm"), ("JSON", "json")):
        answer = httpx.post(f"{address}/v1/timeline", params={"format": form}, content=recording.read_bytes(),
                            headers={"content-type": "audio/wav"})  # fmt: skip
        assert answer.status_code == 200
        ours = download(page, button).read_text(encoding="utf-8")
        if form == "json":
            assert json.loads(ours) == answer.json()
        else:
            assert ours == answer.text.replace("SPEAKER recording", "SPEAKER two_voices")


def test_scores_come_while_speaking_and_the_recording_stays(page, recognizer, recording, tmp_path):
    upload(page, recording)
    assert page.locator("#rows tr").count() > 0
    page.select_option("#window", "1")
    page.select_option("#hop", "0.5")
    page.get_by_role("button", name="Record", exact=True).click()
    until(page, lambda: page.inner_text("#source").endswith("live"))
    until(page, lambda: sum(columns(page)) >= 4 * 4)  # four emotions, four cells
    early = len(page.get_attribute("#loudness", "d"))
    assert page.inner_text("#source").endswith("live")
    assert re.fullmatch(r"(angry|happy|neutral|sad)\s+\d+\s%", page.inner_text("#answer"))
    assert page.get_by_role("button", name="CSV").is_disabled()
    assert page.locator("#rows tr").count() == 0  # not those of the recording before
    until(page, lambda: len(page.get_attribute("#loudness", "d")) > early)  # it grows
    page.get_by_role("button", name="Stop", exact=True).click()
    until_done(page, page.inner_text("#source").partition(" ·")[0])

    sound = tmp_path / "recorded.wav"
    sound.write_bytes(download(page, "Sound (WAV)").read_bytes())
    assert np.abs(soundfile.read(sound)[0]).max() > 0.1
    expected = recognizer.timeline(sound, 1.0, 0.5)
    rows = list(csv.DictReader(download(page, "CSV").read_text().splitlines()))
    assert len(rows) == len(expected.windows) >= 3
    for row, window in zip(rows, expected.windows, strict=True):
        found = [float(row[label]) for label in expected.labels]
        assert found == pytest.approx(window.scores, abs=0.02)  # the file has 16 bits

    page.get_by_role("button", name="Play").click()
    until(page, lambda: seconds_at(page) > 0.2)
    page.get_by_role("button", name="Pause").click()


def test_a_stream_that_breaks_leaves_what_was_recorded(page):
    routes = []

    def between(route):
        routes.append(route)
        route.connect_to_server()

    page.route_web_socket("**/v1/stream", between)
    page.select_option("#window", "1")
    page.get_by_role("button", name="Record", exact=True).click()
    until(page, lambda: sum(columns(page)) > 0)
    routes[0].close(code=1011)
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == "The server ended the live connection."
    assert page.get_by_role("button", name="Record", exact=True).is_enabled()
    assert page.get_by_role("button", name="Play").is_enabled()
    assert len(download(page, "CSV").read_text().splitlines()) >= 2


def test_what_cannot_be_read_is_said_and_the_page_goes_on(page, faults, recording, tmp_path):
    (tmp_path / "notes.pdf").write_bytes(b"%PDF-1.4 nothing to hear")
    page.set_input_files("#file", tmp_path / "notes.pdf")
    page.wait_for_selector("#error:not(:empty)")
    message = page.get_by_role("alert").inner_text()
    assert message.startswith("notes.pdf was not analysed. This is not audio that the server can decode.")
    assert page.locator("#result").is_hidden()
    assert [fault for fault in faults if "415" not in fault] == []  # the browser notes every refused request
    faults.clear()
    upload(page, recording)
    assert page.inner_text("#error") == ""


def test_a_file_over_the_limit_is_not_sent(page, tmp_path):
    (tmp_path / "long.wav").write_bytes(bytes(1_500_000))
    page.on("request", lambda request: pytest.fail(f"{request.url} was requested"))
    page.set_input_files("#file", tmp_path / "long.wav")
    page.wait_for_selector("#error:not(:empty)")
    assert "This file has 1.5 MB; the server takes at most 1.0 MB." in page.inner_text("#error")


def test_a_busy_server_is_said(page, faults, recording):
    refusal = {"error": {"code": "busy", "message": "too many are waiting; try again"}}
    page.route("**/v1/predict", lambda route: route.fulfill(status=429, json=refusal))
    page.set_input_files("#file", recording)
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == "two voices.wav was not analysed. Too many are waiting; try again."
    faults.clear()


def test_a_first_recording_that_is_too_much_work_is_taken_with_a_longer_step(page, faults, recording):
    page.select_option("#hop", "0.25")
    page.set_input_files("#file", recording)
    page.wait_for_selector("#error:not(:empty)")
    assert "Choose a longer step" in page.inner_text("#error")
    assert page.input_value("#hop") == "0.25"
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.select_option("#hop", "1")
    until_done(page, recording.name)
    assert [url.partition("/v1/")[2] for url in asked if "/v1/" in url] == ["timeline?window=4&hop=1"]
    assert len(faults) == 1  # the browser notes the refused request
    faults.clear()


def test_what_a_timeline_warns_of_is_noted(page, recording):
    mended, refused = "the file was cut off", "1 of 5 windows could not be judged, and counts as silence (too loud)"
    told = {"warnings": [mended, refused]}

    def answer(route):
        fetched = route.fetch()
        timeline = fetched.json()
        del timeline["warnings"]  # as of a server before this one
        route.fulfill(response=fetched, json=timeline | told)

    page.route("**/v1/timeline*", answer)
    page.route("**/v1/predict", lambda route: route.fulfill(json=route.fetch().json() | {"warnings": [mended]}))
    upload(page, recording)
    assert page.inner_text("#notes") == f"the whole recording · {mended} · {refused}"
    told.clear()
    page.select_option("#hop", "2")
    until(page, lambda: page.inner_text("#notes") == f"the whole recording · {mended}")


def test_a_model_that_abstains_names_no_emotion(page, recording):
    def doubt(route):
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"label": None})

    page.route("**/v1/predict", doubt)
    upload(page, recording)
    assert page.inner_text("#answer").strip() == "not sure"
    assert "no score is high enough" in page.inner_text("#notes")


def test_what_only_the_server_decodes_has_a_timeline_without_a_waveform(page, recording, tmp_path):
    samples, rate = soundfile.read(recording)
    soundfile.write(tmp_path / "old.aiff", samples, rate)
    upload(page, tmp_path / "old.aiff")
    assert page.get_by_text("This browser cannot decode the file").is_visible()
    assert page.inner_text("#status-text").endswith("No waveform.")
    assert page.get_attribute("#loudness", "d") == ""
    assert min(columns(page)) > 0
    assert page.get_by_role("button", name="Play").is_disabled()


def test_the_keyboard_is_enough(page, recording):
    choosers = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    for stop in ("theme", "drop"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == stop
    page.keyboard.press("Enter")
    until(page, lambda: choosers)
    choosers[0].set_files(recording)
    until_done(page, recording.name)
    for stop in ("record", "window", "hop", "track"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == stop
    spoken = [page.get_attribute("#track", "aria-valuetext")]
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        spoken.append(page.get_attribute("#track", "aria-valuetext"))
    assert [text[:6] for text in spoken] == ["0:00.0", "0:01.0", "0:02.0", "0:03.0"]
    assert len({text.partition(": ")[2] for text in spoken}) > 1
    page.keyboard.press("Control+ArrowRight")
    assert page.get_attribute("#track", "aria-valuetext") == spoken[-1]
    page.keyboard.press("End")
    assert seconds_at(page) == pytest.approx(float(page.get_attribute("#track", "aria-valuemax")), abs=0.1)
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    until(page, lambda: seconds_at(page) > 0.2)
    page.keyboard.press("Space")
    until(page, page.get_by_role("button", name="Play").is_visible)
    page.keyboard.press("Tab")  # play
    page.keyboard.press("Tab")
    with page.expect_download() as started:
        page.keyboard.press("Enter")
    assert started.value.suggested_filename == "two voices.csv"


def luminance(colour: str) -> float:
    channels = np.array([int(value) / 255 for value in re.findall(r"\d+", colour)[:3]])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


COLOUR = """([kind, name]) => {
    const probe = document.body.appendChild(document.createElement("p"));
    probe.className = kind;
    probe.style.color = `var(--${name})`;
    const colour = getComputedStyle(probe).color;
    probe.remove();
    return colour;
}"""


def test_the_dark_theme_is_dark_and_kept_and_both_can_be_read(page):
    grounds = []
    for pressed in ("false", "true"):
        toggle = page.get_by_role("button", name="Dark")
        assert toggle.get_attribute("aria-pressed") == pressed
        read = [(text, ground) for text in ("ink", "quiet", "accent") for ground in ("page", "card", "well", "sky")]
        read += [("alarm", "alarm-ground"), ("on-accent", "accent"), ("page", "ink")]
        for text, ground in read:
            colours = [page.evaluate(COLOUR, ["", name]) for name in (text, ground)]
            assert contrast(*colours) >= 4.5, (text, ground, colours)
        for emotion in range(8):
            colours = [page.evaluate(COLOUR, [f"emotion-{emotion}", name]) for name in ("hue", "on-hue")]
            assert contrast(*colours) >= 4.5
        grounds.append(page.evaluate(COLOUR, ["", "page"]))
        toggle.click()
    assert luminance(grounds[0]) > 0.8 > 0.02 > luminance(grounds[1])
    page.get_by_role("button", name="Dark").click()
    page.reload()
    assert page.evaluate(COLOUR, ["", "page"]) == grounds[1]


def test_the_systems_theme_is_the_default(browser, address):
    page = browser.new_page(color_scheme="dark")
    page.goto(address)
    assert luminance(page.evaluate(COLOUR, ["", "page"])) < 0.02
    page.close()


def test_nothing_runs_or_loads_but_the_servers_own(address):
    answer = httpx.get(address)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"<style|style=|<script>| on\w+=|https?:", answer.text) == []


def test_a_phone_needs_no_sideways_scrolling(page, recording, tmp_path):
    samples, rate = soundfile.read(recording)
    long = tmp_path / f"{'recording' * 20}.wav"
    soundfile.write(long, np.tile(samples, 2), rate)  # long enough to be zoomed
    page.set_viewport_size({"width": 320, "height": 700})
    upload(page, long)
    page.get_by_role("button", name="Zoom in").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_the_page_merges_windows_as_the_server_does(page):
    random = np.random.default_rng(0)
    for window, hop, seconds in ((4.0, 1.0, 9.3), (1.0, 0.25, 3.1), (2.5, 1.0, 7.0), (1.0, 1.0, 2.9)):
        starts = np.arange(0, seconds - window + hop, hop).tolist()
        scores = random.dirichlet([1, 1, 1], len(starts)).tolist()
        silent = (random.random(len(starts)) < 0.2).tolist()
        windows = tuple(
            Window(start, min(start + window, seconds), tuple(of_window), in_silence)
            for start, of_window, in_silence in zip(starts, scores, silent, strict=True)
        )
        quiet = tuple((random.random(math.ceil(seconds / hop)) < 0.2).tolist())
        timeline = Timeline(("a", "b", "c"), hop, windows, quiet, seconds).as_dict()
        merged = page.evaluate(
            """async (timeline) => {
                const { cellsOf, mergeCells } = await import("/static/timeline.js");
                return mergeCells(cellsOf(timeline), timeline.labels);
            }""",
            timeline,
        )
        assert [segment["label"] for segment in merged] == [segment["label"] for segment in timeline["segments"]]
        for ours, theirs in zip(merged, timeline["segments"], strict=True):
            for part in ("start", "end", "score"):
                assert ours[part] == pytest.approx(theirs[part])


# Long recordings: the sound is the short one, and the timeline ten minutes of it.


@pytest.fixture
def ten_minutes(page, recording):
    """The page with a timeline of 600 windows, no two neighbours alike."""
    labels = ["angry", "happy", "neutral", "sad"]

    def answer(route):
        windows, segments = [], []
        for second in range(600):
            scores = dict.fromkeys(labels, 0.1) | {labels[second % 4]: 0.7}
            windows.append({"start": second, "end": second + 1, "silent": False, "scores": scores})
            segments.append({"start": second, "end": second + 1, "label": labels[second % 4], "score": 0.7})
        route.fulfill(json={"labels": labels, "hop": 1, "seconds": 600, "windows": windows, "segments": segments})

    page.route("**/v1/timeline*", answer)
    upload(page, recording)
    return page


def widths(page) -> list[float]:
    return page.eval_on_selector_all("#segments div", "boxes => boxes.map(box => box.clientWidth)")  # without borders


def test_short_segments_of_a_long_recording_have_a_colour(ten_minutes):
    assert len(widths(ten_minutes)) == 600
    assert min(widths(ten_minutes)) > 0


def test_zooming_shows_a_part_that_follows_the_place(ten_minutes):
    page = ten_minutes
    width = page.locator("#picture").bounding_box()["width"]
    out, closer = (page.get_by_role("button", name=name) for name in ("Zoom out", "Zoom in"))
    assert out.get_attribute("aria-disabled") == "true"
    while closer.get_attribute("aria-disabled") == "false":
        closer.click()
    assert page.locator("#picture").bounding_box()["width"] == width
    assert 5 <= width / widths(page)[1] <= 12  # seconds in view
    assert page.inner_text("#segments div >> nth=1") == "happy"

    place = page.locator("#cursor")
    for key, seconds in (("End", 600), ("Home", 0), ("PageUp", 10)):
        page.locator("#track").press(key)
        assert seconds_at(page) == seconds
        assert place.is_visible()
        box, view = place.bounding_box(), page.locator("#view").bounding_box()
        assert view["x"] <= box["x"] <= view["x"] + view["width"]
    until(page, lambda: page.locator("#segments div[title$='0:10.0 to 0:11.0']").count() == 1)

    for _ in range(10):
        page.locator("#track").press("-")
    assert len(widths(page)) == 600
    assert out.get_attribute("aria-disabled") == "true"


# Two things at once.


@pytest.fixture
def hold(page):
    """Call it with an address: requests to it wait until the function that it returns is called."""

    def close(address: str) -> Callable[[], None]:
        page.route(address, lambda route: None)
        return lambda: page.unroute(address)

    return close


def copied(recording: Path, folder: Path) -> Path:
    return Path(shutil.copy(recording, folder / "other.wav"))


def test_a_setting_changed_while_a_second_file_is_analysed_is_for_that_file(
    page, hold, recognizer, recording, tmp_path
):
    upload(page, recording)
    release = hold("**/v1/predict")
    page.set_input_files("#file", copied(recording, tmp_path))
    until(page, lambda: page.inner_text("#status-text") == "Listening to other.wav …")
    release()
    page.select_option("#window", "2")
    until_done(page, "other.wav")
    assert f"; {len(recognizer.timeline(recording, 2.0, 1.0).windows)} windows" in page.inner_text("#status-text")


def test_a_setting_changed_while_the_first_file_is_analysed_counts(page, hold, recognizer, recording):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    release = hold("**/v1/timeline*")
    page.set_input_files("#file", recording)
    until(page, lambda: any("timeline" in url for url in asked))
    release()
    page.select_option("#window", "2")
    until_done(page, recording.name)
    assert f"; {len(recognizer.timeline(recording, 2.0, 1.0).windows)} windows" in page.inner_text("#status-text")


def test_what_is_cancelled_is_forgotten(page, hold, recording, tmp_path):
    upload(page, recording)
    before = page.inner_text("#rows")
    hold("**/v1/timeline*")
    page.select_option("#window", "2")
    page.get_by_role("button", name="Cancel").click()
    until(page, lambda: page.inner_text("#status-text") == "Cancelled.")
    assert page.evaluate("document.activeElement.id") == "drop"
    assert page.input_value("#window") == "4"
    release = hold("**/v1/predict")
    page.set_input_files("#file", copied(recording, tmp_path))
    page.get_by_role("button", name="Cancel").click()
    until(page, lambda: page.inner_text("#status-text") == "Cancelled.")
    assert page.inner_text("#rows") == before
    release()
    page.unroute("**/v1/timeline*")
    page.select_option("#window", "1")
    until_done(page, recording.name)


def test_a_file_that_changes_on_the_disk_stays_as_it_was_heard(page, recognizer, recording, tmp_path):
    path = copied(recording, tmp_path)
    upload(page, path)
    path.write_bytes(b"nothing")
    page.select_option("#window", "2")
    until_done(page, path.name)
    assert f"; {len(recognizer.timeline(recording, 2.0, 1.0).windows)} windows" in page.inner_text("#status-text")


def test_a_folder_is_said_to_be_none_that_can_be_read(page, recording):
    page.evaluate("() => { File.prototype.arrayBuffer = () => Promise.reject(new Error()); }")
    page.set_input_files("#file", recording)
    page.wait_for_selector("#error:not(:empty)")
    assert "It cannot be read. Is it a folder" in page.inner_text("#error")


def test_a_recording_is_dropped(page, recording):
    transfer = page.evaluate_handle(
        """(bytes) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(bytes)], "dropped.wav"));
            return transfer;
        }""",
        list(recording.read_bytes()),
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": transfer})
    assert "over" in page.get_attribute("#drop", "class")
    page.dispatch_event("h1", "drop", {"dataTransfer": transfer})  # missed by an inch
    until_done(page, "dropped.wav")
    assert "over" not in page.get_attribute("#drop", "class")


def test_another_file_ends_the_playing(page, recording, tmp_path):
    upload(page, recording)
    page.get_by_role("button", name="Play").click()
    until(page, page.get_by_role("button", name="Pause").is_visible)
    upload(page, copied(recording, tmp_path))
    assert page.get_attribute("#play", "aria-label") == "Play"
    assert seconds_at(page) == 0
    page.get_by_role("button", name="Play").click()
    until(page, page.get_by_role("button", name="Pause").is_visible)


def test_while_playing_a_screen_reader_is_told_once_a_second(page, recording):
    upload(page, recording)
    page.evaluate(
        """() => {
            window.told = 0;
            const attributes = { attributeFilter: ["aria-valuetext", "aria-valuenow"] };
            new MutationObserver(() => window.told++).observe(document.getElementById("track"), attributes);
        }"""
    )
    page.get_by_role("button", name="Play").click()
    until(page, lambda: page.inner_text("#time") >= "0:02.2")
    assert 2 <= page.evaluate("told") <= 4
    page.get_by_role("button", name="Pause").click()
    until(page, lambda: page.get_attribute("#track", "aria-valuetext").startswith(page.inner_text("#time")))


def test_a_finger_that_scrolls_does_not_seek(page, recording):
    upload(page, recording)
    box = page.locator("#track").bounding_box()
    finger = {"pointerType": "touch", "pointerId": 7, "button": 0, "bubbles": True, "clientX": box["x"] + 200}
    for end, seeks in (("pointercancel", False), ("pointerup", True)):
        page.dispatch_event("#track", "pointerdown", finger)
        assert seconds_at(page) == 0
        page.dispatch_event("#track", end, finger)
        page.dispatch_event("#track", "pointerup", finger | {"pointerId": 8})
        assert (seconds_at(page) > 0) == seeks


# The microphone.


def test_a_refused_microphone_is_said(page):
    page.evaluate(
        """() => {
            const refusal = new DOMException("", "NotAllowedError");
            navigator.mediaDevices.getUserMedia = () => Promise.reject(refusal);
        }"""
    )
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == "The browser does not let this page use the microphone."
    assert page.locator("#drop").is_enabled()


def test_nothing_else_begins_while_the_microphone_is_asked_for(page, recording):
    page.evaluate(
        """() => {
            const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
            const answer = new Promise((allow) => (window.allow = allow));
            navigator.mediaDevices.getUserMedia = async (wish) => (await answer, (window.media = await ask(wish)));
        }"""
    )
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    page.get_by_role("button", name="Record", exact=True).click()
    page.set_input_files("#file", recording)
    assert [page.locator(part).is_disabled() for part in ("#drop", "#window", "#hop")] == [True] * 3
    assert page.inner_text("#status-text") == "Waiting for the microphone …"
    page.get_by_role("button", name="Cancel").click()
    until(page, lambda: page.inner_text("#status-text") == "Cancelled.")
    page.evaluate("allow()")  # too late
    until(page, lambda: page.evaluate("window.media?.getTracks()[0].readyState") == "ended")
    assert sent == []
    upload(page, recording)


def test_a_server_that_is_gone_is_said_to_who_wants_to_record(page):
    page.evaluate("() => { AudioWorklet.prototype.addModule = () => Promise.reject(new Error('no module')); }")
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == "The server does not answer. Is it still running?"


def test_a_microphone_that_is_unplugged_ends_the_recording(page):
    page.evaluate(
        """() => {
            const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
            navigator.mediaDevices.getUserMedia = async (wish) => (window.media = await ask(wish));
        }"""
    )
    page.select_option("#window", "1")
    page.get_by_role("button", name="Record", exact=True).click()
    until(page, lambda: sum(columns(page)) > 0)
    page.evaluate("media.getTracks()[0].dispatchEvent(new Event('ended'))")
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == "The microphone was disconnected."
    assert len(download(page, "CSV").read_text().splitlines()) >= 2


def test_a_microphone_that_ends_before_the_server_is_ready_is_said(page):
    page.evaluate(
        """() => {
            const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
            navigator.mediaDevices.getUserMedia = async (wish) => (window.media = await ask(wish));
        }"""
    )
    held = []
    page.route_web_socket("**/v1/stream", lambda route: held.append(route))
    page.get_by_role("button", name="Record", exact=True).click()
    until(page, lambda: held)
    page.evaluate("() => { media.getTracks()[0].stop(); media.getTracks()[0].dispatchEvent(new Event('ended')); }")
    closed = []
    held[0].on_close(lambda *_: closed.append(True))
    held[0].send('{"type": "ready", "labels": ["angry", "happy", "neutral", "sad"]}')
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == "The microphone was disconnected."
    assert page.locator("#drop").is_enabled()
    until(page, lambda: closed)


def test_a_microphone_is_not_left_on_where_there_is_no_sound_system(page):
    page.evaluate(
        """() => {
            const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
            navigator.mediaDevices.getUserMedia = async (wish) => (window.media = await ask(wish));
            window.AudioContext = function () { throw new Error("too many sound contexts"); };
        }"""
    )
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_selector("#error:not(:empty)")
    assert page.inner_text("#error") == "Too many sound contexts."
    assert page.evaluate("media.getTracks()[0].readyState") == "ended"


def record_until_judged(page, to_server=lambda message: True, to_page=lambda message: True) -> list:
    """Record with someone between page and server, who passes on what the functions say; returns the page's end."""
    ends = []

    def between(route):
        ends.append(route)
        server = route.connect_to_server()
        route.on_message(lambda message: server.send(message) if to_server(message) else None)
        server.on_message(lambda message: route.send(message) if to_page(message) else None)

    page.route_web_socket("**/v1/stream", between)
    page.select_option("#window", "1")
    page.select_option("#hop", "0.5")
    page.get_by_role("button", name="Record", exact=True).click()
    until(page, lambda: sum(columns(page)) > 0)
    return ends


def test_sound_that_was_never_judged_is_not_called_silence(page):
    heard = []

    def first_two(message: str) -> bool:
        heard.append(json.loads(message))
        return len(heard) <= 3  # ready, and two windows

    (stream,) = record_until_judged(page, to_page=first_two)
    until(page, lambda: len(heard) >= 8)
    stream.close(code=1011)
    page.wait_for_selector("#error:not(:empty)")
    rows = [line.split("\t") for line in download(page, "Audacity labels").read_text().splitlines()]
    assert float(rows[-1][1]) == heard[2]["end"] == 1.5
    assert "the server heard the first 0:01.5 only" in page.inner_text("#notes")
    page.locator("#track").press("End")
    assert page.get_attribute("#track", "aria-valuetext").endswith(": not heard by the server")


def test_what_the_timeline_of_a_stream_warns_of_is_noted(page):
    warning = "1 of 5 windows could not be judged, and counts as silence (too loud)"

    def between(route):
        server = route.connect_to_server()

        def pass_on(message: str) -> None:
            heard = json.loads(message)
            route.send(json.dumps(heard | {"warnings": [warning]}) if heard["type"] == "timeline" else message)

        server.on_message(pass_on)

    page.route_web_socket("**/v1/stream", between)
    page.select_option("#window", "1")
    page.get_by_role("button", name="Record", exact=True).click()
    until(page, lambda: sum(columns(page)) > 0)
    page.get_by_role("button", name="Stop", exact=True).click()
    until(page, lambda: warning in page.inner_text("#notes"))
    assert page.inner_text("#notes") == f"the whole recording · {warning}"


def test_finishing_can_be_cancelled_and_keeps_what_came(page):
    (stream,) = record_until_judged(page, to_server=lambda message: message != '{"type":"finish"}')
    closed = []
    stream.on_close(lambda *_: closed.append(True))
    page.get_by_role("button", name="Stop", exact=True).click()
    until(page, lambda: page.inner_text("#status-text") == "Finishing …")
    assert [page.locator(part).is_disabled() for part in ("#drop", "#window", "#hop")] == [True] * 3
    page.get_by_role("button", name="Cancel").click()
    until(page, lambda: page.inner_text("#status-text").startswith("Cancelled: "))
    until(page, lambda: closed)
    assert len(download(page, "CSV").read_text().splitlines()) >= 2
    assert page.get_by_role("button", name="Play").is_enabled()
    assert page.locator("#drop").is_enabled()


# What is seen.


def test_silence_has_no_emotion(page, tmp_path):
    soundfile.write(tmp_path / "nothing.wav", np.zeros(5 * 16_000), 16_000)
    upload(page, tmp_path / "nothing.wav")
    assert page.inner_text("#answer").strip() == "silence"
    assert page.inner_text("#status-text").startswith("Done: silence; ")
    assert set(page.locator("#scores .value").all_inner_texts()) == {""}


def test_forced_colours_leave_what_carries_a_meaning(browser, address, recording):
    for scheme in ("light", "dark"):
        page = browser.new_page(forced_colors="active", color_scheme=scheme)
        page.goto(address)
        upload(page, recording)

        def style(selector: str, name: str, page=page) -> str:
            return page.eval_on_selector(selector, "(part, name) => getComputedStyle(part)[name]", name)

        ground, angry = style("html", "backgroundColor"), style("#segments .emotion-0", "backgroundColor")
        assert angry == "rgb(213, 94, 0)"
        assert contrast(style("#segments .emotion-0 span", "color"), angry) >= 4.5
        assert contrast(style("#answer", "color"), ground) >= 4.5
        assert style(".lamp", "backgroundImage") != "none"
        assert contrast(style("#play svg", "fill"), style("#play", "backgroundColor")) >= 4.5
        assert contrast(style("#cursor", "backgroundColor"), ground) >= 4.5
        page.close()
