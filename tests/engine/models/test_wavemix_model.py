import copy
import importlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from engine.errors import UserError
from engine.models import wavemix_model as wavemix_module
from engine.models.wavemix_model import Dropout, WaveBlock, haar, wavemix
from engine.paths import PROJECT

NUMPY_2 = int(numpy.__version__.split(".")[0]) >= 2
CLASSES = 7


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.fixture(scope="module")
def ours() -> nn.Module:
    """Of CLASSES classes, in eval mode; a test that changes it takes a copy."""
    torch.manual_seed(1)
    model = wavemix(CLASSES).eval()
    # the batch norms of a fresh model pass almost everything through; these do not
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif buffer_name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope="module")
def package(ours: nn.Module) -> ModuleType:
    return importlib.import_module("wavemix")


@pytest.fixture(scope="module")
def theirs(ours: nn.Module, package: ModuleType) -> nn.Module:
    """The package's own model with the weights of `ours`."""
    model_class = importlib.import_module("wavemix.classification").WaveMix
    model: nn.Module = model_class(num_classes=CLASSES).eval()
    model.load_state_dict(ours.state_dict())
    return model


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("sides", [(8, 8), (40, 16), (64, 96)])
def test_haar_agrees_with_the_package(package: ModuleType, levels: int, sides: tuple[int, int]) -> None:
    images = torch.randn(2, 5, *sides, generator=torch.Generator().manual_seed(levels))
    expected_low, expected_highs = package.DWTForward(J=levels, mode="zero", wave="db1")(images)
    low = images
    for expected_high in expected_highs:
        low, high = haar(low)
        torch.testing.assert_close(high, expected_high, rtol=0, atol=1e-6)
    torch.testing.assert_close(low, expected_low, rtol=0, atol=1e-6)


def test_haar_of_one_square() -> None:
    low, high = haar(torch.tensor([[[[1.0, 2.0], [4.0, 9.0]]]]))
    assert low.flatten().tolist() == [8.0]
    assert high.flatten().tolist() == [-5.0, -3.0, 2.0]


def test_haar_gradient() -> None:
    images = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(haar, images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_haar_keeps_dtype_and_accepts_any_layout(dtype: torch.dtype) -> None:
    images = torch.randn(2, 3, 8, 16, generator=torch.Generator().manual_seed(1))
    expected = haar(images)
    with torch.autocast("cpu", dtype=torch.float16 if dtype == torch.float16 else torch.bfloat16):
        for found in (haar(images.to(dtype)), haar(images.to(dtype, memory_format=torch.channels_last))):
            for band, expected_band in zip(found, expected, strict=True):
                assert band.dtype == dtype
                torch.testing.assert_close(band.float(), expected_band, rtol=0.02, atol=0.05)


def test_haar_refuses_odd_sides() -> None:
    with pytest.raises(RuntimeError, match="unflatten"):
        haar(torch.zeros(1, 1, 5, 4))


def test_parameters_and_head() -> None:
    with torch.device("meta"):
        model = wavemix()
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == 27.9
    head = model.get_submodule("pool.2")
    assert isinstance(head, nn.Linear)
    assert (head.in_features, head.out_features) == (192, 1000)


def test_state_dict_is_the_packages_own(ours: nn.Module, theirs: nn.Module) -> None:
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    wavemix(CLASSES).load_state_dict(theirs.state_dict(), strict=True)


def test_same_seed_same_weights(package: ModuleType) -> None:
    torch.manual_seed(5)
    found = wavemix(2).state_dict()
    torch.manual_seed(5)
    expected = importlib.import_module("wavemix.classification").WaveMix(num_classes=2).state_dict()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("sides", [(64, 64), (96, 64)])
def test_logits_agree_with_the_package(ours: nn.Module, theirs: nn.Module, sides: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, found = theirs(images), ours(images)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_gradients_agree_with_the_package(ours: nn.Module, theirs: nn.Module) -> None:
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    gradients = []
    for model in (theirs, ours):
        trained = without_dropout(copy.deepcopy(model)).train()
        nn.functional.cross_entropy(trained(images), torch.arange(4)).backward()
        gradients.append([parameter.grad for parameter in trained.parameters()])
    names = [name for name, _ in ours.named_parameters()]
    for name, expected, found in zip(names, *gradients, strict=True):
        assert expected is not None
        assert found is not None
        # a bias in front of a batch norm has no influence: its gradient is rounding noise in both
        assert (found - expected).norm() < 1e-3 * expected.norm() + 1e-5, name


@pytest.mark.parametrize("probability", [0.5, 0.25, 0.3])
def test_dropout_drops_each_element_alone_and_keeps_the_mean(probability: float) -> None:
    torch.manual_seed(0)
    layer = Dropout(probability)
    ones = torch.ones(7, 3, 31, 33, requires_grad=True)
    first, second = layer(ones), layer(ones)
    for found in (first, second):
        kept = found > 0
        assert torch.allclose(found[kept], torch.tensor(1 / (1 - probability)))
        assert kept.float().mean().item() == pytest.approx(1 - probability, abs=0.02)
        # neighbours, which may come from one draw of eight, do not follow each other
        flat = kept.flatten()
        for distance in (1, 2, 4, 8):
            both = (flat[distance:] & flat[:-distance]).float().mean().item()
            assert both == pytest.approx((1 - probability) ** 2, abs=0.02), distance
    assert (first != second).any()
    first.sum().backward()
    assert ones.grad is not None
    assert torch.equal(ones.grad, first.detach())
    assert layer.eval()(ones) is ones or torch.equal(layer(ones), ones)


def test_dropout_of_the_model_is_the_quick_one(ours: nn.Module) -> None:
    layers = [module for module in ours.modules() if isinstance(module, nn.Dropout)]
    assert len(layers) == 48
    assert all(isinstance(layer, Dropout) and layer.p == 0.5 for layer in layers)


@pytest.mark.parametrize("sides", [(48, 64), (64, 40), (31, 32), (8, 8)])
def test_other_sizes_are_refused(ours: nn.Module, sides: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{sides[0]} x {sides[1]} .*multiples of 32, the smallest is 32"):
        ours(torch.zeros(1, 3, *sides))


def test_smallest_size(ours: nn.Module) -> None:
    assert ours(torch.zeros(1, 3, 32, 32)).shape == (1, CLASSES)


def test_bfloat16_autocast_trains() -> None:
    model = wavemix(CLASSES).train()
    dtypes = set()

    def note(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        dtypes.add(output.dtype)

    for module in model.modules():
        if isinstance(module, WaveBlock):
            for inner in (module, module.reduction, module.feedforward1, module.feedforward2, module.feedforward3):
                inner.register_forward_hook(note)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.randn(2, 3, 64, 64))
        loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
    loss.backward()
    assert dtypes == {torch.bfloat16}
    assert torch.isfinite(loss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_compiles_into_one_graph(ours: nn.Module) -> None:
    """With two of its sixteen blocks, which are all alike."""
    images = torch.randn(1, 3, 64, 32)
    model: Any = copy.deepcopy(ours)
    model.layers = model.layers[:2]
    try:
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        with torch.no_grad():
            torch.testing.assert_close(compiled(images), model(images))
        block = model.layers[0]
        features = torch.randn(1, 192, 8, 8)
        compiled_block = torch.compile(block, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled_block(features), block(features))
    finally:
        torch._dynamo.reset()


def test_copies_and_meta_tensors(ours: nn.Module) -> None:
    images = torch.randn(1, 3, 32, 32)
    duplicate = copy.deepcopy(ours)
    with torch.no_grad():
        assert torch.equal(duplicate(images), ours(images))
        next(duplicate.parameters()).zero_()
        assert not torch.equal(duplicate(images), ours(images))
    assert duplicate.to("meta")(images.to("meta")).shape == (1, CLASSES)
    with torch.device("meta"):
        assert wavemix(3)(torch.empty(2, 3, 64, 96)).shape == (2, 3)


IMPORTS = """
import sys
import numpy
import torch
import common

def claim():
    return True

assert 'wavemix' not in sys.modules
common.build_model('shufflenet', 2, 'none')
import engine.models.wavemix_model
loaded = {'wavemix', 'pywt', 'einops', 'numpy.lib.function_base'} & set(sys.modules)
assert loaded <= ({'numpy.lib.function_base'} if numpy.__version__ < '2' else set()), loaded

torch.cuda.is_available = claim
before = vars(numpy.lib).copy()
model = common.build_model('wavemix', 3, 'none')
assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
assert not torch.cuda.is_initialized()
assert torch.cuda.is_available is claim
package = sys.modules['wavemix']
assert package.device.type == package.xf3.h0_col.device.type == 'cpu'
assert vars(numpy.lib) == before
assert numpy.__version__ < '2' or 'numpy.lib.function_base' not in sys.modules
modules = set(sys.modules)
engine.models.wavemix_model.wavemix(3)
assert set(sys.modules) == modules
"""


def test_the_package_is_imported_to_build_wavemix_alone_and_makes_no_context_on_a_card() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def package_not_yet_imported(ours: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "wavemix"]:
        monkeypatch.delitem(sys.modules, name)
    wavemix_module._package_model.cache_clear()
    yield monkeypatch
    wavemix_module._package_model.cache_clear()


def test_numpy_that_has_the_module_is_left_alone(package_not_yet_imported: pytest.MonkeyPatch) -> None:
    present: Any = ModuleType("numpy.lib.function_base")
    present.hamming = len
    package_not_yet_imported.setitem(sys.modules, present.__name__, present)
    wavemix(2)
    assert sys.modules[present.__name__] is present
    assert present.hamming is len


def test_package_not_installed(package_not_yet_imported: pytest.MonkeyPatch) -> None:
    package_not_yet_imported.setitem(sys.modules, "wavemix", None)
    is_available = torch.cuda.is_available
    with pytest.raises(UserError, match=r'pip install "wavemix>=0\.2\.4,<0\.3"'):
        wavemix()
    assert torch.cuda.is_available is is_available
    assert "numpy.lib.function_base" not in sys.modules or not NUMPY_2


def test_first_use_in_several_threads(package_not_yet_imported: pytest.MonkeyPatch) -> None:
    is_available = torch.cuda.is_available
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: wavemix_module._package_model(), range(8)))
    assert torch.cuda.is_available is is_available
    assert "numpy.lib.function_base" not in sys.modules or not NUMPY_2


def test_file_of_the_same_name_hides_the_package(package_not_yet_imported: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "wavemix.py").write_text("", "utf-8")
    package_not_yet_imported.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"'wavemix' is not a package"):
        wavemix()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_every_cuda_device_gives_the_same_logits(ours: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 64)
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    with torch.no_grad():
        expected = ours(images)
        models = [copy.deepcopy(ours).to(device) for device in devices]
        # from the last to the first, all of them alive: nothing hangs on the first device
        for device, model in reversed(list(zip(devices, models, strict=True))):
            torch.testing.assert_close(model(images.to(device)).cpu(), expected, rtol=2e-3, atol=2e-3)
            with torch.autocast("cuda", dtype=torch.float16):
                assert torch.isfinite(model(images.to(device))).all()
