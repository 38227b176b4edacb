"""Every entry of the factory, for real: shapes, sizes, costs, dtypes, a few steps of training."""

import copy
import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import VisionTransformer, WeightsEnum

import common
import digits
from common import BACKBONES, Backbone, WeightsFile, build_model
from engine.config import Config
from engine.data.batches import Batches
from engine.data.declaration import ReadOptions
from engine.errors import UserError
from engine.models.backbone import macs, replace_head, require_size
from engine.models.weights import find_weights
from engine.training.loop import freeze_body, predict, train_epoch
from engine.training.plan import Plan
from engine.training.recipe import make_recipe
from engine.training.state import State
from engine.training.step import Step
from tests import toy

CLASSES = 10
CPU = Plan("cpu", "the processor", "fp32", "for the test")

# the published table: millions of parameters with 1000 classes, ImageNet-1k top-1 in percent
PUBLISHED = {
    "resnet": (25.6, 76.13),
    "wavemix": (27.9, 75.32),
    "convnext": (28.6, 82.52),
    "swin": (28.3, 81.47),
    "swinv2": (28.4, 82.07),
    "efficientnet": (21.5, 84.23),
    "densenet": (28.7, 77.14),
    "mobilenet": (5.5, 75.27),
    "regnet": (19.4, 81.98),
    "resnext": (25.0, 81.20),
    "shufflenet": (7.4, 76.23),
}

# the sides of the smallest square that works, where it is not one pixel
SMALLEST = {"wavemix": 32, "convnext": 32, "swin": 4, "swinv2": 4, "densenet": 29, "inception": 75}


def new_model(name: str, classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, classes, "none")


def cheap_side(name: str) -> int:
    return max(32, SMALLEST.get(name, 1))


def random_images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def step(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Forward and backward in train mode, without an optimizer; the logits."""
    logits: torch.Tensor = model.train()(images)
    cross_entropy(logits, torch.arange(len(images))).backward()
    return logits.detach()


def parameters_without_a_finite_gradient(model: nn.Module) -> list[str]:
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or parameter.grad.dtype != torch.float32 or not parameter.grad.isfinite().all()
    ]


def different(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The names of the tensors that are not the same bit by bit."""
    assert before.keys() == after.keys()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.fixture(scope="module", params=list(BACKBONES))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def pristine(name: str) -> nn.Module:
    """Of CLASSES classes and a fixed seed; not to be changed."""
    return new_model(name)


@pytest.fixture
def model(pristine: nn.Module) -> nn.Module:
    return copy.deepcopy(pristine)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_logits_have_the_asked_classes_in_both_modes(name: str, classes: int) -> None:
    model = new_model(name, classes)
    side = cheap_side(name)
    with torch.no_grad():
        for images, logits in (
            (2, model.train()(random_images(2, 3, side, side))),
            (3, model.eval()(random_images(3, 3, side, side))),
        ):
            assert isinstance(logits, torch.Tensor)
            assert logits.shape == (images, classes)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (224, 224), (256, 256), (448, 672)])
def test_forward_and_backward_at(name: str, size: tuple[int, int], model: nn.Module) -> None:
    if min(size) < SMALLEST.get(name, 1):
        with pytest.raises(UserError, match="smallest that works"):
            require_size(model, name, size)
        return
    require_size(model, name, size)
    # batch normalisation of 1x1 feature maps, as small images end in, takes two images
    images = 2 if min(size) <= 64 else 1
    logits = step(model, random_images(images, 3, *size))
    assert logits.shape == (images, CLASSES)
    assert logits.isfinite().all()
    assert parameters_without_a_finite_gradient(model) == []


def test_smallest_size(name: str, model: nn.Module) -> None:
    side = SMALLEST.get(name, 1)
    require_size(model, name, (side, side))
    assert step(model, random_images(2, 3, side, side)).isfinite().all()
    assert parameters_without_a_finite_gradient(model) == []
    with torch.no_grad():
        assert model.eval()(random_images(1, 3, side, side)).isfinite().all()
        if side > 1:
            with pytest.raises((RuntimeError, ValueError)):
                model(random_images(1, 3, side - 1, side - 1))
            with pytest.raises(
                UserError, match=rf"{name} .*{side - 1}x{side - 1} .*smallest that works is {side}x{side}"
            ):
                require_size(model, name, (side - 1, side - 1))


@pytest.mark.parametrize(
    ("name", "asked", "smallest", "above"),
    [
        ("wavemix", (100, 100), 32, (128, 128)),
        ("wavemix", (448, 670), 32, (448, 672)),
        ("wavemix", (1000, 20), 32, (1024, 32)),
        ("inception", (448, 50), 75, (448, 75)),
        ("densenet", (16, 64), 29, (29, 64)),
        ("convnext", (8, 8), 32, (32, 32)),
    ],
)
def test_the_size_advised_is_the_nearest_that_works(
    name: str, asked: tuple[int, int], smallest: int, above: tuple[int, int]
) -> None:
    model = new_model(name)
    height, width = above
    with pytest.raises(UserError) as caught:
        require_size(model, name, asked)
    message = str(caught.value)
    assert f"{asked[0]}x{asked[1]} pixels: the smallest that works is {smallest}x{smallest}" in message
    assert (f", the next above {height}x{width}." in message) == (above != (smallest, smallest))
    assert message.endswith(f"Use --size {height}." if height == width else f"Use --size {height} {width}.")
    require_size(model, name, above)
    # one pixel less on a side that had to be enlarged is too little; without numbers, as it is quicker
    shapes = model.to("meta").eval()
    enlarged = [(height - 1, width)] * (height > asked[0]) + [(height, width - 1)] * (width > asked[1])
    for smaller in enlarged:
        with pytest.raises((RuntimeError, ValueError)):
            shapes(torch.empty(1, 3, *smaller, device="meta"))


def test_a_backbone_of_one_size_only() -> None:
    model = VisionTransformer(image_size=48, patch_size=16, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8)
    require_size(model, "vit", (48, 48))
    for size in ((32, 32), (64, 64), (48, 64), (2000, 10)):
        with pytest.raises(
            UserError, match=rf"{size[0]}x{size[1]} pixels: the smallest that works is 48x48\.\nUse --size 48\.$"
        ):
            require_size(model, "vit", size)


def test_a_fault_that_is_not_the_sizes_stays_visible() -> None:
    class Broken(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise ValueError("whatever the size")

    with pytest.raises(ValueError, match="whatever the size"):
        require_size(Broken(), "broken", (32, 32))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_accuracy_are_the_published(name: str) -> None:
    backbone = BACKBONES[name]
    parameters = sum(parameter.numel() for parameter in backbone.builder().parameters())
    millions, accuracy = PUBLISHED[name]
    assert round(parameters / 1e6, 1) == millions
    if isinstance(backbone.weights, WeightsEnum):
        assert parameters == backbone.weights.meta["num_params"]
        assert round(backbone.weights.meta["_metrics"]["ImageNet-1K"]["acc@1"], 2) == accuracy


@pytest.mark.parametrize("name", [name for name, entry in BACKBONES.items() if isinstance(entry.weights, WeightsEnum)])
def test_macs_agree_with_torchvision(name: str) -> None:
    weights = BACKBONES[name].weights
    assert isinstance(weights, WeightsEnum)
    (side,) = weights.transforms().crop_size
    # what torchvision calls operations are multiply-accumulates, in 1e9 with three decimals
    assert macs(BACKBONES[name].builder(), (side, side)) / 1e9 == pytest.approx(
        weights.meta["_ops"], rel=1e-3, abs=5e-4
    )


def test_counting_and_asking_leave_the_model_alone(name: str, model: nn.Module, pristine: nn.Module) -> None:
    model.train()
    side = cheap_side(name)
    assert macs(model, (side, side)) > 0
    require_size(model, name, (side, side))
    assert model.training
    assert different(pristine.state_dict(), model.state_dict()) == set()


def test_the_head_is_the_last_layer_and_alone_replaced(name: str, model: nn.Module, pristine: nn.Module) -> None:
    head = BACKBONES[name].head
    outputs = []
    layer = model.get_submodule(head)
    assert isinstance(layer, nn.Linear)
    layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    side = cheap_side(name)
    with torch.no_grad():
        logits = model.eval()(random_images(1, 3, side, side))
    assert len(outputs) == 1
    assert torch.equal(outputs[0], logits)

    replace_head(model, head, 7)
    new = model.get_submodule(head)
    assert isinstance(new, nn.Linear)
    assert (new.in_features, new.out_features) == (layer.in_features, 7)
    assert new.bias is not None
    after, before = model.state_dict(), pristine.state_dict()
    assert list(after) == list(before)
    of_head = {f"{head}.weight", f"{head}.bias"}
    assert {key for key in before if not torch.equal(before[key], after[key])} == of_head


def test_a_head_that_is_not_a_linear_layer() -> None:
    with pytest.raises(TypeError, match="'0' is a Conv2d"):
        replace_head(toy.tiny(), "0", 3)


class MatrixProducts(TorchDispatchMode):
    """Notes the dtype of what every convolution and matrix product computes, those outside of modules too."""

    KINDS = frozenset(
        getattr(torch.ops.aten, kind)
        for kind in ("convolution", "_convolution", "linear", "mm", "addmm", "bmm", "baddbmm", "matmul")
    )

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in self.KINDS:
            self.dtypes.append(output.dtype)
        return output


on_cuda = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", "fp32"),
        ("cpu", "bf16"),
        pytest.param("cuda", "bf16", marks=on_cuda),
        pytest.param("cuda", "fp16", marks=on_cuda),
    ],
)
def test_everything_heavy_computes_in_the_dtype_of_the_plan(
    name: str, device: str, precision: str, model: nn.Module
) -> None:
    plan = Plan(device, device, precision, "for the test")
    model.to(device).train()
    side = cheap_side(name)
    images, labels = random_images(2, 3, side, side).to(device), torch.arange(2, device=device)
    seen = MatrixProducts()
    with plan.autocast():
        with seen:
            logits = model(images)
        loss = cross_entropy(logits, labels)
    assert set(seen.dtypes) == {plan.dtype}
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    assert len(seen.dtypes) >= len(layers)
    assert logits.dtype == plan.dtype
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    loss.backward()
    assert parameters_without_a_finite_gradient(model) == []


@dataclass
class Training:
    """A few steps on the same few images, and the model before and after them."""

    batches: Batches
    before: dict[str, torch.Tensor]
    losses: list[float]
    model: nn.Module


def digits_for(name: str) -> Batches:
    images = digits.read(ReadOptions(Path(), False)).train
    size = (cheap_side(name), cheap_side(name))
    backbone = find_weights(BACKBONES[name], "none")
    return Batches(images.take(np.arange(4)), 4, size, backbone.mean, backbone.std, "cpu")


def train(name: str, model: nn.Module, tune: str, epochs: int) -> Training:
    # a transformer's residual branches end in normalisations here, which from random weights at 1e-3 takes a warm-up
    config = Config(model=name, lr=1e-4 if name == "swinv2" else 1e-3, tune=tune, seed=0)
    batches = digits_for(name)
    head = model.get_submodule(BACKBONES[name].head)
    if tune == "linear":
        freeze_body(model, head)
    before = copy.deepcopy(model.state_dict())
    course = make_recipe(config, BACKBONES[name].rate, batches.steps)
    torch.manual_seed(0)
    step = Step(model, course.optimizer(0, model, head), CPU, batches.batch_size)
    losses = [train_epoch(model, head, batches, step, course, State(epochs=epoch))[0] for epoch in range(epochs)]
    return Training(batches, before, losses, model)


@pytest.fixture(scope="module")
def training(name: str) -> Training:
    """Of all layers; not to be changed."""
    return train(name, new_model(name), "full", 10)


def test_training_lowers_the_loss(training: Training) -> None:
    assert sum(training.losses[-3:]) < 0.85 * sum(training.losses[:3])


def test_training_changes_every_layer(training: Training) -> None:
    changed = different(training.before, training.model.state_dict())
    assert {name for name, _ in training.model.named_parameters()} <= changed


def test_saved_and_loaded_it_predicts_the_same(name: str, training: Training, tmp_path: Path) -> None:
    torch.save(training.model.state_dict(), tmp_path / "model.pt")
    torch.manual_seed(1)
    fresh = build_model(name, CLASSES, "none")
    expected, _ = predict(training.model, training.batches, CPU, "test")
    assert (predict(fresh, training.batches, CPU, "test")[0] != expected).any()
    fresh.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert (predict(fresh, training.batches, CPU, "test")[0] == expected).all()


def test_linear_tuning_changes_the_head_alone(name: str, model: nn.Module) -> None:
    training = train(name, model, "linear", 2)
    head = BACKBONES[name].head
    assert different(training.before, model.state_dict()) == {f"{head}.weight", f"{head}.bias"}


def test_the_package_wavemix_is_imported_only_to_build_wavemix() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, common\n"
            "assert 'wavemix' not in sys.modules\n"
            "common.build_model('mobilenet', 2, 'none')\n"
            "assert 'wavemix' not in sys.modules\n"
            "common.build_model('wavemix', 2, 'none')\n"
            "assert 'wavemix' in sys.modules\n",
        ],
        cwd=Path(common.__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_a_new_backbone_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my weights.pth"
    saved = toy.tiny().state_dict()
    torch.save(saved, file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(BACKBONES, "tiny", Backbone(toy.tiny, WeightsFile("mine", file.as_uri(), sha256), "6"))
    state = build_model("tiny", 3, "imagenet").state_dict()
    assert state["6.weight"].shape == (3, 32)
    assert state.keys() == saved.keys()
    for key in saved.keys() - {"6.weight", "6.bias"}:
        assert torch.equal(state[key], saved[key]), key
    assert find_weights(BACKBONES["tiny"], "imagenet").sha256 == sha256
