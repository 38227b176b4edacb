"""TrivialAugmentWide (Müller & Hutter 2021, arXiv:2103.10158): one random operation at a random strength an image."""

import numpy as np
import numpy.typing as npt
from PIL import Image
from torchvision.transforms import TrivialAugmentWide

_AUGMENT = TrivialAugmentWide()


def trivial_augment(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Augment each image of a batch (B, H, W, 3) by a draw of its own from torch's global CPU generator.

    torchvision applies one operation to all it is given, so images are given one by one; as PIL images, since
    operations on tensors this small spend 5 to 15 times as long in starting threads.
    """
    return np.stack([np.asarray(_AUGMENT(Image.fromarray(image))) for image in images])
