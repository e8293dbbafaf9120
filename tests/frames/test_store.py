import shutil
from pathlib import Path

import pytest
import torch

from serein.errors import StoreError
from serein.frames.store import FrameStore, write_shard


@pytest.fixture
def store(tone_store, tmp_path) -> FrameStore:
    shutil.copytree(tone_store.folder, tmp_path / "frames")
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
