"""emotion2vec's downstream head.

Source: Ma et al. 2023, "emotion2vec"; ddlBoJack/emotion2vec, iemocap_downstream/model.py. Reproduced: linear layer to
256, ReLU, mean over time, linear output: layer for layer EmoBox's head at 256 hidden units, so it is that class here.
The two sources differ in training only: RMSprop (momentum 0.9) under a cyclic learning rate here, Adam there. Ours: as
in :mod:`serein.baselines.emobox`, the layer mix and the standardised frames (the source reads one layer of its own
encoder, 768 wide).
"""

from serein.baselines.emobox import EmoBoxHead


class Emotion2vecHead(EmoBoxHead):
    """EmoBox's head with the 256 hidden units that the source fixes.

    Args:
        layers: how many of the encoder's layers come in.
        input_width: width of the encoder's frames.
        classes: number of emotions.
    """

    def __init__(self, layers: int, input_width: int, classes: int) -> None:
        super().__init__(layers, input_width, classes, hidden=256)
