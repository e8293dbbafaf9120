import math

import pytest
import torch
from vector_quantize_pytorch import VectorQuantize

from serein.nn.attributes import LocalAttributes, assign, attribute_logits, quantization_error


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def started(prototypes: torch.Tensor, **settings) -> LocalAttributes:
    attributes = LocalAttributes(len(prototypes), prototypes.shape[1], revive_below=0.0, **settings)
    attributes.prototypes.copy_(prototypes)
    attributes.counts.fill_(1.0)
    attributes.started.fill_(True)
    return attributes


def test_eq_4_assigns_the_nearest_attribute():
    frames, prototypes = torch.randn(200, 8), torch.randn(16, 8)
    assert assign(frames, prototypes).equal(torch.cdist(frames, prototypes).argmin(1))


def test_eq_3_sums_squared_distances_to_the_own_attribute():
    # ||(0,0)-(1,0)||^2 + ||(5,0)-(4,0)||^2 + ||(4,2)-(4,0)||^2 = 1 + 1 + 4
    frames = torch.tensor([[0.0, 0.0], [5.0, 0.0], [4.0, 2.0]])
    prototypes = torch.tensor([[1.0, 0.0], [4.0, 0.0]])
    assert quantization_error(frames, prototypes, assign(frames, prototypes)).item() == pytest.approx(6.0)


def test_eq_5_moves_an_attribute_towards_its_frame_by_eta():
    # p' = p + eta (z - p) = (0, 4) + 1/4 ((4, 0) - (0, 4)) = (1, 3); the other stays
    attributes = started(torch.tensor([[0.0, 4.0], [100.0, 0.0]]), eta=0.25)
    attributes.update(torch.tensor([[4.0, 0.0]]), torch.tensor([0]), seeded())
    assert attributes.prototypes.tolist() == [[1.0, 3.0], [100.0, 0.0]]


def test_without_forgetting_an_attribute_is_the_mean_of_all_its_frames():
    # eta_t = 1 / count is online k-means: after any number of batches p is the plain mean
    attributes = started(torch.zeros(1, 3), decay=0.0)
    attributes.decay = 1.0
    attributes.counts.zero_()
    frames = torch.randn(40, 3)
    for part in frames.split([1, 7, 32]):
        attributes.update(part, torch.zeros(len(part), dtype=torch.long), seeded())
    assert torch.allclose(attributes.prototypes[0], frames.mean(0), atol=1e-6)


def test_one_frame_at_a_time_equals_eq_5_with_eta_one_over_the_smoothed_count():
    attributes = started(torch.zeros(1, 2), decay=0.5)
    prototype, count = torch.zeros(2), 1.0
    for frame in torch.randn(6, 2):
        attributes.update(frame[None], torch.tensor([0]), seeded())
        count = 0.5 * count + 1
        prototype = prototype + (frame - prototype) / count
        assert torch.allclose(attributes.prototypes[0], prototype, atol=1e-6)


def test_updates_equal_vector_quantize_pytorchs_ema_codebook():
    torch.manual_seed(0)
    theirs = VectorQuantize(dim=4, codebook_size=8, decay=0.9, eps=1e-12, threshold_ema_dead_code=0)
    codebook = theirs._codebook
    ours = started(codebook.embed[0].clone(), decay=0.9)
    codebook.cluster_size.fill_(1.0)
    codebook.embed_avg.copy_(codebook.embed)
    theirs.train()
    # Theirs weighs a batch with 1 - decay, which scales counts and sums alike: a starting count of 1 there is 10 here.
    ours.counts.fill_(10.0)
    for _ in range(5):
        frames = torch.randn(1, 50, 4)
        assignments = assign(frames[0], ours.prototypes)
        indices = theirs(frames)[1]
        assert indices[0].equal(assignments)
        ours.update(frames[0], assignments, seeded())
        assert torch.allclose(ours.prototypes, codebook.embed[0], atol=1e-5)


def test_attributes_start_on_real_frames_without_repetition():
    frames = torch.randn(50, 3)
    attributes = LocalAttributes(20, 3)
    attributes.start(frames, seeded())
    nearest = torch.cdist(attributes.prototypes, frames).min(1)
    assert nearest.values.max() < 1e-3
    assert nearest.indices.unique().numel() == 20
    assert attributes.started


def test_an_attribute_starts_with_its_even_share_of_the_first_batch():
    attributes = LocalAttributes(4, 3, decay=0.5)
    attributes.start(torch.randn(20, 3), seeded())
    assert attributes.counts.tolist() == [5.0] * 4
    before = attributes.prototypes[0].clone()
    attributes.update(torch.ones(1, 3), torch.tensor([0]), seeded())
    assert torch.allclose(attributes.prototypes[0], before + (1 - before) / (0.5 * 5 + 1))  # eta = n / c


def test_fewer_frames_than_attributes_still_start():
    attributes = LocalAttributes(20, 3)
    attributes.start(torch.randn(5, 3), seeded())
    assert attributes.prototypes.isfinite().all()


def test_an_attribute_far_below_uniform_usage_is_moved_onto_a_frame_of_the_batch():
    attributes = LocalAttributes(3, 2, decay=0.5, revive_below=0.1)
    attributes.prototypes.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0], [900.0, 900.0]]))
    attributes.counts.copy_(torch.tensor([10.0, 10.0, 0.1]))
    frames = torch.randn(40, 2)
    health = attributes.update(frames, assign(frames, attributes.prototypes), seeded())
    assert health.revived == 1
    assert torch.cdist(attributes.prototypes[2:], frames).min() < 1e-6
    assert attributes.counts[2] == pytest.approx(attributes.counts.mean().item(), rel=0.5)


def test_idle_attributes_move_onto_different_frames_and_the_others_stay():
    attributes = LocalAttributes(6, 2, decay=0.5, revive_below=0.1)
    attributes.prototypes.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]] + [[900.0, 900.0]] * 4))
    attributes.counts.copy_(torch.tensor([10.0, 10.0, 0.0, 0.0, 0.0, 0.0]))
    frames = torch.randn(40, 2)
    health = attributes.update(frames, assign(frames, attributes.prototypes), seeded())
    nearest = torch.cdist(attributes.prototypes[2:], frames).min(1)
    assert health.revived.item() == 4
    assert nearest.values.max() < 1e-3
    assert nearest.indices.unique().numel() == 4
    assert attributes.prototypes[:2].abs().max() < 3
    attributes.prototypes[2:] = 900.0
    attributes.counts[2:] = 0.0
    attributes.update(frames[:2], torch.tensor([0, 1]), seeded())  # fewer frames than idle attributes
    assert torch.cdist(attributes.prototypes[2:], frames[:2]).min(1).values.max() < 1e-3


def test_an_idle_attribute_moves_onto_a_frame_that_the_generator_draws():
    def taken(seed: int) -> float:
        attributes = started(torch.tensor([[0.0], [900.0]]))
        attributes.revive_below = 0.1
        attributes.counts[1] = 0.0
        attributes.update(torch.arange(40.0).view(40, 1), torch.zeros(40, dtype=torch.long), seeded(seed))
        return attributes.prototypes[1].item()

    assert taken(0) == taken(0)
    assert len({taken(seed) for seed in range(4)}) > 1


def test_with_revive_below_0_an_attribute_that_gets_nothing_stays_where_it_is():
    attributes = started(torch.tensor([[0.0], [900.0]]))
    attributes.counts[1] = 0.0
    assert attributes.update(torch.randn(3, 1), torch.zeros(3, dtype=torch.long), seeded()).revived == 0
    assert attributes.prototypes[1].item() == 900.0


def test_usage_and_perplexity_by_hand():
    attributes = started(torch.zeros(4, 1))
    attributes.got.copy_(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    health = attributes.health()
    assert health.usage.item() == 0.5
    assert health.perplexity.item() == pytest.approx(2 / 4)
    attributes.got.fill_(3.0)
    assert attributes.health().perplexity.item() == pytest.approx(1.0)


def test_an_attribute_with_less_than_a_tenth_of_its_even_share_is_not_in_use():
    attributes = started(torch.zeros(4, 1))
    attributes.got.copy_(torch.tensor([94.0, 3.0, 2.0, 1.0]))  # a tenth of the even share is 2.5
    assert attributes.health().usage.item() == 0.5


def test_usage_and_perplexity_forget_what_was_long_ago():
    attributes = started(torch.zeros(2, 1), decay=0.5)
    for label in (0, 1, 1):
        health = attributes.update(torch.zeros(1, 1), torch.tensor([label]), seeded())
    # smoothed counts 1/4 and 1/2 + 1: shares 1/7 and 6/7
    entropy = -(math.log(1 / 7) + 6 * math.log(6 / 7)) / 7
    assert health.perplexity.item() == pytest.approx(math.exp(entropy) / 2)


def test_cosine_logits_by_hand_and_distance_logits_agree_with_eq_4():
    frames = torch.tensor([[3.0, 0.0]])
    prototypes = torch.tensor([[5.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert attribute_logits(frames, prototypes, 0.5).tolist() == [[2.0, 0.0, -2.0]]
    distances = attribute_logits(frames, prototypes, 2.0, "distance")
    assert distances.tolist() == [[pytest.approx(-2.0), pytest.approx(-5.0), pytest.approx(-8.0)]]
    many = torch.randn(30, 2)
    assert attribute_logits(many, prototypes, 1.0, "distance").argmax(1).equal(assign(many, prototypes))


def test_perplexity_stays_finite_with_empty_attributes():
    attributes = started(torch.zeros(4, 1))
    attributes.got.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert math.isfinite(attributes.health().perplexity)


@pytest.mark.parametrize("steps", [20, 100, 300])
def test_revival_does_not_hide_that_one_attribute_gets_every_frame(steps):
    attributes = LocalAttributes(64, 2)
    attributes.start(torch.randn(200, 2), seeded())
    for _ in range(steps):
        health = attributes.update(torch.randn(200, 2), torch.zeros(200, dtype=torch.long), seeded())
    assert health.usage.item() == pytest.approx(1 / 64)
    assert health.perplexity.item() == pytest.approx(1 / 64)
