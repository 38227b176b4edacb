"""Every entry of the factory, for real: shapes, sizes, costs, dtypes, a few steps of training."""

import copy
import hashlib
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import VisionTransformer, WeightsEnum

import digits
from common import BACKBONES, Backbone, WeightsFile, build_model
from engine.code_hash import code_of
from engine.data.batches import Batches
from engine.data.declaration import ReadOptions
from engine.errors import UserError
from engine.models.names import find_backbone
from engine.models.structure import freeze_body, macs, replace_head, set_train_mode, trains_batch_norm
from engine.models.weights import find_weights
from engine.training.evaluation import predict
from engine.training.loop import train_epoch
from engine.training.plan import Plan
from engine.training.recipe import make_recipe
from engine.training.state import State
from engine.training.step import Step
from tests import toy
from tests.cards.conftest import DRY

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

OF_TORCHVISION = [name for name, entry in BACKBONES.items() if isinstance(entry.pretrained, WeightsEnum)]


def new_model(name: str, classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, classes, "none")


def shape_of(name: str) -> nn.Module:
    """The backbone without numbers, in eval mode: it is made, and computes, in moments."""
    # RegNet computes its widths as tensors
    with torch.device("cpu" if name == "regnet" else "meta"):
        return new_model(name).to("meta").eval()


def cheap_side(name: str) -> int:
    return max(32, BACKBONES[name].smallest)


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


@pytest.fixture(scope="module")
def shape(pristine: nn.Module) -> nn.Module:
    """As shape_of(); not to be changed."""
    return copy.deepcopy(pristine).to("meta").eval()


@pytest.fixture
def model(pristine: nn.Module) -> nn.Module:
    return copy.deepcopy(pristine)


def test_eleven_are_the_published_ones() -> None:
    assert {name for name, entry in BACKBONES.items() if entry.published} == PUBLISHED.keys()


def test_logits_have_the_asked_classes_in_both_modes(name: str, model: nn.Module) -> None:
    side = cheap_side(name)
    with torch.no_grad():
        for images, logits in (
            (2, model.train()(random_images(2, 3, side, side))),
            (3, model.eval()(random_images(3, 3, side, side))),
        ):
            assert isinstance(logits, torch.Tensor)
            assert logits.shape == (images, CLASSES)


@pytest.mark.parametrize("name", ["shufflenet", "wavemix"])
@pytest.mark.parametrize("classes", [2, 1000])
def test_as_few_and_as_many_classes(name: str, classes: int) -> None:
    model = build_model(name, classes, "none").eval()
    assert model(random_images(1, 3, 32, 32)).shape == (1, classes)


LARGE = [(32, 32), (64, 64), (224, 224), (256, 256), (448, 672)]


@pytest.mark.parametrize("size", [None, *(pytest.param(size, marks=pytest.mark.slow) for size in LARGE)])
def test_forward_and_backward_at(name: str, size: tuple[int, int] | None, model: nn.Module) -> None:
    """At what is cheap and not a square, and at what is usual."""
    size = size or (cheap_side(name), 2 * cheap_side(name))
    if min(size) < BACKBONES[name].smallest:
        with pytest.raises(UserError, match="smallest that works"):
            BACKBONES[name].require_size(name, size)
        return
    BACKBONES[name].require_size(name, size)
    # batch normalisation of 1x1 feature maps, as small images end in, takes two images
    images = 2 if min(size) <= 96 else 1
    logits = step(model, random_images(images, 3, *size))
    assert logits.shape == (images, CLASSES)
    assert logits.isfinite().all()
    assert parameters_without_a_finite_gradient(model) == []


def test_the_smallest_size_is_the_one_that_is_stated(name: str, model: nn.Module) -> None:
    entry = BACKBONES[name]
    side = entry.smallest
    entry.require_size(name, (side, side))
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
                entry.require_size(name, (side - 1, side - 1))


def test_every_multiple_works_and_nothing_between(name: str, shape: nn.Module) -> None:
    entry = BACKBONES[name]
    side = cheap_side(name)
    between = (side + 7, side)
    if entry.multiple_of == 1:
        entry.require_size(name, between)
        assert shape(torch.empty(1, 3, *between, device="meta")).shape == (1, CLASSES)
    else:
        with pytest.raises(UserError, match=f"multiples of {entry.multiple_of}"):
            entry.require_size(name, between)
        with pytest.raises((RuntimeError, ValueError)):
            shape(torch.empty(1, 3, *between, device="meta"))


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
    height, width = above
    with pytest.raises(UserError) as caught:
        BACKBONES[name].require_size(name, asked)
    message = str(caught.value)
    assert f"{asked[0]}x{asked[1]} pixels: the smallest that works is {smallest}x{smallest}" in message
    assert ("both sides must be multiples of 32" in message) == (name == "wavemix")
    assert message.endswith(f"Use --size {height}." if height == width else f"Use --size {height} {width}.")
    BACKBONES[name].require_size(name, above)
    shape = shape_of(name)
    assert shape(torch.empty(1, 3, *above, device="meta")).shape == (1, CLASSES)
    # one pixel less on a side that had to be enlarged is too little
    enlarged = [(height - 1, width)] * (height > asked[0]) + [(height, width - 1)] * (width > asked[1])
    model = new_model(name).eval()
    for smaller in enlarged:
        # with numbers: some versions of PyTorch give maps without pixels a shape, where they can't compute them
        with pytest.raises((RuntimeError, ValueError)), torch.no_grad():
            model(random_images(1, 3, *smaller))


def test_a_backbone_of_one_size_only() -> None:
    """No entry can state that; it is told when its costs are counted."""
    model = VisionTransformer(image_size=48, patch_size=16, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8)
    assert macs(model, (48, 48)) > 0
    for size in ((32, 32), (64, 64), (48, 64), (2000, 10)):
        with pytest.raises(
            UserError, match=rf"can't take images of {size[0]}x{size[1]} pixels: .+\nUse another --size"
        ):
            macs(model, size)


def test_a_fault_that_is_not_the_sizes_stays_visible() -> None:
    class Broken(nn.Module):
        def __init__(self, problem: Exception) -> None:
            super().__init__()
            self.problem = problem

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise self.problem

    with pytest.raises(UserError, match="whatever the size"):
        macs(Broken(ValueError("whatever the size")), (32, 32))
    with pytest.raises(TypeError, match="no such argument"):
        macs(Broken(TypeError("no such argument")), (32, 32))


@cache
def built(name: str) -> nn.Module:
    """With 1000 classes and without numbers; not to be changed."""
    with torch.device("cpu" if name == "regnet" else "meta"):
        return BACKBONES[name].build().to("meta")


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_accuracy_are_the_published(name: str) -> None:
    entry = BACKBONES[name]
    parameters = sum(parameter.numel() for parameter in built(name).parameters())
    millions, accuracy = PUBLISHED[name]
    assert round(parameters / 1e6, 1) == millions
    weights = entry.pretrained
    if isinstance(weights, WeightsFile):
        assert weights.top1 == accuracy
    else:
        assert isinstance(weights, WeightsEnum)
        assert parameters == weights.meta["num_params"]
        assert round(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"], 2) == accuracy


@pytest.mark.parametrize("name", OF_TORCHVISION)
def test_macs_agree_with_torchvision(name: str) -> None:
    weights = BACKBONES[name].pretrained
    assert isinstance(weights, WeightsEnum)
    (side,) = weights.transforms().crop_size
    # what torchvision calls operations are multiply-accumulates, in 1e9 with three decimals
    assert macs(built(name), (side, side)) / 1e9 == pytest.approx(weights.meta["_ops"], rel=1e-3, abs=5e-4)


@pytest.mark.parametrize("name", ["resnet", "swinv2", "wavemix"])
def test_counting_leaves_the_model_alone(name: str) -> None:
    model = new_model(name).train()
    before = copy.deepcopy(model.state_dict())
    assert macs(model, (32, 32)) > 0
    assert all(module.training for module in model.modules())
    assert different(before, model.state_dict()) == set()


def test_a_frozen_body_stays_in_evaluation_mode(name: str, model: nn.Module) -> None:
    head = BACKBONES[name].head
    has_batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    set_train_mode(model)
    assert all(module.training for module in model.modules())
    assert trains_batch_norm(model) is has_batch_norm
    freeze_body(model, head)
    set_train_mode(model)
    assert [key for key, module in model.named_modules() if module.training] == [head]
    assert not trains_batch_norm(model)


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
    with pytest.raises(UserError, match="'0' is a Conv2d"):
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


# fp16 ends at 65,504, and batch normalisation over two images of 32 px makes gradients of 5e5 to 4e7 in six backbones;
# over eight, of 200 at most
@pytest.mark.parametrize(
    ("device", "precision", "images"),
    [
        pytest.param("cpu", "fp32", 2, marks=pytest.mark.slow),
        ("cpu", "bf16", 2),
        pytest.param("cpu", "fp16", 8, marks=pytest.mark.slow),
        pytest.param("cuda", "bf16", 2, marks=on_cuda),
        pytest.param("cuda", "fp16", 8, marks=on_cuda),
    ],
)
def test_everything_heavy_computes_in_the_dtype_of_the_plan(
    name: str, device: str, precision: str, images: int, model: nn.Module
) -> None:
    if (name, device, precision) == ("swinv2", "cpu", "fp16"):
        pytest.skip(
            "a processor's autocast leaves the norm of its padding in fp16, where 1e-12 is 0; a card's does not"
        )
    plan = Plan(device, device, precision, "for the test")
    model.to(device).train()
    side = cheap_side(name)
    batch, labels = random_images(images, 3, side, side).to(device), torch.arange(images, device=device)
    seen = MatrixProducts()
    with plan.autocast():
        with seen:
            logits = model(batch)
        loss = cross_entropy(logits, labels)
    assert set(seen.dtypes) == {plan.dtype}
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    assert len(seen.dtypes) >= len(layers)
    assert logits.dtype == plan.dtype
    assert loss.dtype == torch.float32
    loss.backward()
    if not DRY:
        assert loss.isfinite()
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
    weights = find_weights(BACKBONES[name], "none")
    return Batches("train", images.take(np.arange(4)), 4, size, weights.mean, weights.std, "cpu")


def train(name: str, model: nn.Module, tune: str, epochs: int) -> Training:
    # a transformer's residual branches end in normalisations here, which from random weights at 1e-3 takes a warm-up
    lr = 1e-4 if name == "swinv2" else 1e-3
    batches = digits_for(name)
    if tune == "linear":
        freeze_body(model, BACKBONES[name].head)
    before = copy.deepcopy(model.state_dict())
    recipe = make_recipe("adamw-sgd", lr, None, 10)
    torch.manual_seed(0)
    step = Step(model, recipe.optimizer(recipe.stages[0], model), CPU, batches.batch_size)
    losses = [train_epoch(model, batches, step, recipe, State(epochs=epoch))[0] for epoch in range(epochs)]
    return Training(batches, before, losses, model)


@pytest.fixture(scope="module")
def training(name: str, pristine: nn.Module) -> Training:
    """Of all layers; not to be changed."""
    return train(name, copy.deepcopy(pristine), "full", 8)


def test_training_lowers_the_loss(training: Training) -> None:
    assert sum(training.losses[-3:]) < 0.85 * sum(training.losses[:3])


def test_training_changes_every_layer(training: Training) -> None:
    changed = different(training.before, training.model.state_dict())
    assert {name for name, _ in training.model.named_parameters()} <= changed


def test_saved_and_loaded_it_predicts_the_same(training: Training, model: nn.Module, tmp_path: Path) -> None:
    torch.save(training.model.state_dict(), tmp_path / "model.pt")
    expected, _ = predict(training.model, training.batches, CPU)
    assert (predict(model, training.batches, CPU)[0] != expected).any()
    model.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert (predict(model, training.batches, CPU)[0] == expected).all()


def test_linear_tuning_changes_the_head_alone(name: str, model: nn.Module) -> None:
    training = train(name, model, "linear", 1)
    head = BACKBONES[name].head
    assert different(training.before, model.state_dict()) == {f"{head}.weight", f"{head}.bias"}


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


class Maker:
    """Builds when it is called."""

    def __init__(self, width: object) -> None:
        self.width = width

    def __call__(self) -> nn.Module:
        return toy.tiny()

    def build(self) -> nn.Module:
        return toy.tiny()


class Tiny(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(*toy.tiny().children())


HERE, TOY = Path(__file__).name, "toy.py"


@pytest.mark.parametrize(
    ("builder", "called", "file"),
    [
        (toy.tiny, "tiny", TOY),
        (partial(toy.tiny), "tiny()", TOY),
        (partial(partial(Tiny)), "Tiny()", HERE),
        (Tiny, "Tiny", HERE),
        (lambda: toy.tiny(), "<lambda>", HERE),
        (Maker(3), "Maker", HERE),
        (partial(Maker(3)), "Maker()", HERE),
        (Maker(3).build, "build", HERE),
        (cache(toy.tiny), "tiny", TOY),
        ("tests.toy.tiny", "tiny", TOY),
        ("tests.toy:tiny", "tiny", TOY),
    ],
    ids=[
        "function",
        "partial",
        "partials",
        "class",
        "lambda",
        "object",
        "partial object",
        "method",
        "cached",
        "name",
        "colon",
    ],
)
def test_a_builder_is_anything_that_can_be_called(
    builder: Any, called: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Backbone(builder, None, "6")
    assert (entry.builder_name, Path(entry.source).name) == (called, file)
    monkeypatch.setitem(BACKBONES, "tiny", entry)
    assert build_model("tiny", 3, "none")(random_images(2, 3, 8, 8)).shape == (2, 3)
    assert find_backbone(called, BACKBONES).name == "tiny"


def test_what_a_partial_binds_is_told_apart() -> None:
    resnet18 = torchvision.models.resnet18
    narrow, wide = (Backbone(partial(resnet18, norm_layer=nn.GroupNorm, width=n), None, "fc") for n in (1, 2))
    assert narrow.builder_name == "resnet18(norm_layer=GroupNorm, width=1)"
    assert narrow.source == ""
    codes = [code_of(digits.read, each.source, each.arguments)["backbone"] for each in (narrow, wide)]
    plain = Backbone(resnet18, None, "fc")
    assert len({*codes, code_of(digits.read, plain.source, plain.arguments)["backbone"]}) == 3
    assert find_backbone("resnet50", BACKBONES | {"mine": replace(BACKBONES["resnet"], lr=1.0)}).name == "resnet"


def test_what_a_partial_binds_may_have_no_name() -> None:
    for bound, name in ((object(), "object"), ("x" * 1000, "str"), (("a", 0.5), "('a', 0.5)")):
        builder: Any = partial(Maker, bound)
        assert Backbone(builder, None, "6").builder_name == f"Maker({name})"


def failing() -> nn.Module:
    raise ValueError("no such width")


@pytest.mark.parametrize(
    ("builder", "says"),
    [
        ("resnet51", "the builder 'resnet51' of BACKBONES can't be imported: module "),
        ("no.such.thing", "the builder 'no.such.thing' of BACKBONES can't be imported: No module named 'no'"),
        ("tests.toy.CLASSES", "the builder 'tests.toy.CLASSES' of BACKBONES names a tuple. Expected what is called"),
        (nn.Linear, "the builder Linear of BACKBONES fails: TypeError: Linear.__init__() missing 2 required"),
        (failing, "the builder failing of BACKBONES fails: ValueError: no such width (" + __file__),
        (dict, "the builder dict of BACKBONES makes a dict, no nn.Module. Expected what is called without arguments"),
        (toy.tiny(), "the builder Sequential of BACKBONES fails: TypeError"),
    ],
    ids=["misspelt", "no module", "no function", "arguments", "raises", "no model", "a model"],
)
def test_a_builder_that_makes_no_model_is_the_users_to_mend(
    builder: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Backbone(builder, None, "6")
    assert entry.source is not None
    monkeypatch.setitem(BACKBONES, "mine", entry)
    with pytest.raises(UserError) as caught:
        build_model("mine", 3, "none")
    assert str(caught.value).startswith(says)


def test_an_entry_that_can_not_be(monkeypatch: pytest.MonkeyPatch) -> None:
    untyped: Any = Backbone
    for builder in (5, None, ""):
        with pytest.raises(UserError, match="Backbone: the builder is "):
            untyped(builder, None, "6")
    with pytest.raises(UserError, match=r"Backbone: the head is None\. Expected the dotted name"):
        untyped(toy.tiny, None, None)
    for head, says in (("fc", "'fc' is no layer of the model"), ("0", "'0' is a Conv2d, not a linear layer")):
        monkeypatch.setitem(BACKBONES, "mine", Backbone(toy.tiny, None, head))
        with pytest.raises(UserError, match=f"the head {says}. Expected, in the entry of BACKBONES, .* layers: 6."):
            build_model("mine", 3, "none")
    for weights, says in (
        (None, r"tiny has no pretrained weights: .*\n.* --weights FILE \(.*--weights none \(.*--weights auto \("),
        ("ResNet50_Weights.V9", "the weights 'ResNet50_Weights.V9' of BACKBONES can't be imported"),
        ("ResNet50_Weights", "the weights 'ResNet50_Weights' of BACKBONES are no member of an enum"),
    ):
        with pytest.raises(UserError, match=says):
            find_weights(Backbone(toy.tiny, weights, "6"), "imagenet")
    assert find_weights(Backbone(toy.tiny, None, "6"), "auto").name == "none"
