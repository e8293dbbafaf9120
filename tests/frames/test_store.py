import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from serein.errors import StoreError
from serein.files import write_atomically
from serein.frames.store import FrameStore, settings_digest, write_shard


@pytest.fixture
def store(tone_store, tmp_path) -> FrameStore:
    # a test of mapped frames may have left its flat file in the store that all share
    shutil.copytree(tone_store.folder, tmp_path / "frames", ignore=shutil.ignore_patterns("flat-*"))
    return FrameStore(tmp_path / "frames")


def rewritten(store: FrameStore, ids: tuple[str, ...], frames: list[torch.Tensor]) -> str:
    for shard in store.headers:
        write_shard(shard, (), (), {})
    write_shard(next(iter(store.headers)), ids, frames, {})
    return FrameStore(store.folder).digest


def test_a_digest_is_of_the_frames_and_of_whose_they_are(store, tone_store):
    assert store.digest == tone_store.digest == FrameStore(store.folder).digest
    one, two = torch.ones(3, 1, 4).half(), torch.zeros(2, 1, 4).half()
    digests = [
        rewritten(store, ("a", "b"), [one, two]),
        rewritten(store, ("a", "c"), [one, two]),
        rewritten(store, ("a", "b"), [one[:2], torch.cat([one[:1], two])]),  # the same bytes, parted elsewhere
        rewritten(store, ("a", "b"), [one, two + 1]),
    ]
    assert len({*digests, tone_store.digest}) == 5
    assert rewritten(store, ("a", "b"), [one, two]) == digests[0]


def flat_files(store: FrameStore) -> list[Path]:
    return list(store.folder.glob("flat-*"))


def test_mapped_frames_are_those_in_memory(store):
    memory, mapped = store.load(), store.load(mapped=True)
    assert mapped.ids == memory.ids
    assert mapped.flat.equal(memory.flat)
    chosen = torch.tensor([5, 0, 40])
    assert mapped.batch(chosen).frames.equal(memory.batch(chosen).frames)
    (flat,) = flat_files(store)
    assert flat.stat().st_size == 2 * memory.flat.numel()


def test_the_flat_file_is_written_once_and_nothing_writes_into_it(store):
    mapped = store.load(mapped=True)
    (flat,) = flat_files(store)
    before = flat.stat().st_mtime_ns, flat.read_bytes()
    mapped.flat[0] += 1
    again = FrameStore(store.folder).load(mapped=True)
    assert (flat.stat().st_mtime_ns, flat.read_bytes()) == before
    assert not again.flat[0].equal(mapped.flat[0])


def test_a_flat_file_of_other_shards_is_not_read(store):
    store.load(mapped=True)
    (outdated,) = flat_files(store)
    outdated.rename(outdated.with_name("flat-0123456789abcdef.float16"))
    assert store.load(mapped=True).flat.equal(store.load().flat)
    assert [file.name for file in flat_files(store)] == [outdated.name]


def test_a_flat_file_that_was_cut_is_refused(store):
    store.load(mapped=True)
    (flat,) = flat_files(store)
    flat.write_bytes(flat.read_bytes()[:-2])
    with pytest.raises(StoreError, match="not as long"):
        store.load(mapped=True)


def test_changed_shards_are_refused_before_they_are_copied(store):
    shard = next(iter(store.headers))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="bytes have changed"):
        store.load(mapped=True)
    assert not flat_files(store)


def partial_files(store: FrameStore) -> list[Path]:
    return list(store.folder.glob("*.partial"))


def test_two_that_write_the_flat_file_at_once_both_read_the_shards(store, monkeypatch):
    expected, shards = store.load().flat, FrameStore._shards

    def meeting_another(self):
        first, *rest = shards(self)
        yield first
        with monkeypatch.context() as patch:
            patch.setattr(FrameStore, "_shards", shards)
            assert FrameStore(self.folder).load(mapped=True).flat.equal(expected)
        yield from rest

    monkeypatch.setattr(FrameStore, "_shards", meeting_another)
    assert store.load(mapped=True).flat.equal(expected)
    assert FrameStore(store.folder).load(mapped=True).flat.equal(expected)
    assert not partial_files(store)


def test_a_writer_that_fails_leaves_what_was_there_and_nothing_else(store, monkeypatch):
    def broken(self):
        yield torch.zeros(4)
        raise StoreError("a shard is damaged")

    before = sorted(store.folder.iterdir())
    monkeypatch.setattr(FrameStore, "_shards", broken)
    with pytest.raises(StoreError, match="damaged"):
        store.load(mapped=True)
    assert sorted(store.folder.iterdir()) == before


def test_an_outdated_flat_file_may_be_gone_already(store, monkeypatch):
    expected = store.load().flat
    monkeypatch.setattr(Path, "glob", lambda folder, _: [folder / "flat-gone.float16"])
    assert store.load(mapped=True).flat.equal(expected)


def test_what_killed_writers_left_goes_after_an_hour(store):
    store.load(mapped=True)
    (flat,) = flat_files(store)
    young, old, of_before = (flat.with_name(f".{flat.name}.{end}") for end in ("1.partial", "2.partial", "partial"))
    of_other_shards = flat.with_name(".flat-0123456789abcdef.float16.3.partial")
    for path in (young, old, of_before, of_other_shards):
        path.write_bytes(b"half")
    for path in (old, of_before, of_other_shards):
        os.utime(path, (0, 0))
    store.load(mapped=True)
    assert partial_files(store) == [young]
    os.utime(young, (0, 0))
    write_atomically(flat, flat.read_bytes())
    assert not partial_files(store)


def test_a_shard_of_another_store_is_not_read(store):
    settings = json.loads((store.folder / "store.json").read_text(encoding="utf-8"))
    assert settings_digest(settings | {"made_with": {}}) == settings_digest(settings)
    (store.folder / "store.json").write_text(json.dumps(settings | {"pool": 3}), encoding="utf-8")
    with pytest.raises(StoreError, match=r"shard-00000\.safetensors: holds frames made with other settings.*delete it"):
        FrameStore(store.folder)


def test_shards_that_do_not_say_how_they_were_made_are_read(store):
    for (shard, header), frames in zip(store.headers.items(), list(store._shards()), strict=True):
        write_shard(shard, header.ids, frames.split(list(header.lengths)), header.failed)
    assert FrameStore(store.folder).digest == store.digest
