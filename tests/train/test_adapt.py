import pytest
import torch

from serein.errors import SereinError
from serein.train.adapt import read


def row(step: int, loss: float) -> dict[str, object]:
    return {"step": step, "learning_rate": 0.1, "loss": torch.tensor(loss), "revived": torch.tensor(step)}


def test_rows_of_several_steps_are_read_at_once():
    assert read([row(4, 0.5), row(5, 0.25)]) == [
        {"step": 4, "learning_rate": 0.1, "loss": 0.5, "revived": 4},
        {"step": 5, "learning_rate": 0.1, "loss": 0.25, "revived": 5},
    ]


def test_the_step_that_diverged_is_named_even_if_it_is_read_later():
    with pytest.raises(SereinError, match="adapt: the loss is nan at step 5"):
        read([row(4, 0.5), row(5, float("nan")), row(6, float("nan"))])
