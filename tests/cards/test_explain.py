"""Heat maps on a card."""

from collections.abc import Callable

import numpy as np
import pytest
from torch import nn

from predicting.explain import GRAD_CAM, OCCLUSION, Explainer
from tests.cards.conftest import DRY
from tests.predicting.test_explain import SIZE, Tokens, image, red_or_blue, trained

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize(("make", "method"), [(red_or_blue, GRAD_CAM), (Tokens, OCCLUSION)])
@pytest.mark.parametrize("there", ["cpu", "cuda"])
def test_heat_of_a_model_that_is_anywhere(make: Callable[[], nn.Module], method: str, there: str) -> None:
    model = make().to(there)
    explainer = Explainer(trained(), model, "cuda")
    if there == "cpu" or not DRY:  # a dry card copies no values, by which the method is found
        assert explainer.method == method
    heat = explainer.heat(image(), 0)
    assert heat.shape == SIZE
    assert heat.dtype == np.float32
    assert next(model.parameters()).device.type == there
