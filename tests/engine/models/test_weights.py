"""`--weights`: found, downloaded, refused, and loaded, with files like those that are published."""

import hashlib
import io
import pickle
import re
import socket
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models import WeightsEnum

from common import BACKBONES, Backbone, WeightsFile, build_model
from engine.errors import UserError
from engine.models import weights
from engine.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from engine.models.state_dict import load_file
from engine.models.wavemix_model import package_wavemix
from engine.models.weights import NONE, Weights, build, find_weights
from tests import toy
from tests.server import Server

HEAD = toy.TINY.head
OF_HEAD = {f"{HEAD}.weight", f"{HEAD}.bias"}
Save = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch keeps what it downloads; a folder of the test's own, not there yet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(content: Any, **options: Any) -> Path:
        torch.save(content, tmp_path / "weights.pth", **options)
        return tmp_path / "weights.pth"

    return write


def tiny(seed: int = 1) -> nn.Module:
    """With weights, running statistics and a count that no fresh one has."""
    torch.manual_seed(seed)
    model = toy.tiny()
    model.train()(torch.randn(4, 3, 16, 16))
    return model


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def sha256_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def at(url: str, sha256: str | None = None) -> Backbone:
    return replace(toy.TINY, weights=WeightsFile("tiny_1", url, sha256))


def load(path: Path, model: nn.Module | None = None) -> nn.Module:
    model = model or toy.tiny()
    load_file(model, path, HEAD, "tiny")
    return model


def assert_same(found: nn.Module, expected: dict[str, torch.Tensor], but: Collection[str] = ()) -> None:
    state = found.state_dict()
    assert state.keys() == expected.keys() | set(but)
    for key in state.keys() - set(but):
        assert torch.equal(state[key], expected[key]), key


def test_downloaded_once_and_verified(server: Server, cache: Path) -> None:
    body = saved(tiny().state_dict())
    backbone = at(server.add("/weights/tiny.pth", body), sha256_of(body))
    for _ in range(2):
        found = find_weights(backbone, "imagenet")
        assert found == Weights("tiny_1", cache / "tiny.pth", sha256_of(body), IMAGENET_MEAN, IMAGENET_STD)
        assert (cache / "tiny.pth").read_bytes() == body
    assert server.seen == ["/weights/tiny.pth"]


def test_without_a_published_checksum_the_file_tells_its_own(server: Server, cache: Path) -> None:
    assert find_weights(at(server.add("/tiny.pth", b"whatever")), "imagenet").sha256 == sha256_of(b"whatever")


def test_a_query_is_no_part_of_the_file_name(server: Server, cache: Path) -> None:
    found = find_weights(at(server.add("/tiny.pth?download=true", b"whatever")), "imagenet")
    assert found.file == cache / "tiny.pth"


@pytest.mark.parametrize(
    ("choice", "member"), [("imagenet", "IMAGENET1K_V1"), ("auto", "IMAGENET1K_V1"), ("IMAGENET1K_V2", "IMAGENET1K_V2")]
)
def test_members_of_an_enum(
    choice: str, member: str, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b"the right file"
    file_name = f"resnet50-{sha256_of(body)[:8]}.pth"
    url = server.add(f"/models/{file_name}", body)
    monkeypatch.setattr(models.ResNet50_Weights[member].value, "url", url)
    expected = Weights(f"ResNet50_Weights.{member}", cache / file_name, sha256_of(body), IMAGENET_MEAN, IMAGENET_STD)
    assert find_weights(BACKBONES["resnet"], choice) == expected


def test_a_member_whose_file_is_another_one(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.add("/models/resnet50-01234567.pth", b"not it")
    monkeypatch.setattr(models.ResNet50_Weights.IMAGENET1K_V1.value, "url", url)
    with pytest.raises(UserError, match=r"(?s)another file \(6 bytes.*expected|resnet50-01234567.*sha256:01234567"):
        find_weights(BACKBONES["resnet"], "imagenet")
    assert not (cache / "resnet50-01234567.pth").exists()


def test_a_member_without_a_checksum_in_its_name(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.ResNet50_Weights.IMAGENET1K_V1.value, "url", server.add("/resnet50.pth", b"whatever"))
    assert find_weights(BACKBONES["resnet"], "imagenet").file == cache / "resnet50.pth"


@pytest.mark.parametrize("published", [True, False])
def test_a_file_url_is_used_where_it_lies(published: bool, tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "my weights" / "tiny.pth"
    file.parent.mkdir()
    file.write_bytes(b"whatever")
    sha256 = sha256_of(b"whatever")
    assert find_weights(at(file.as_uri(), sha256 if published else None), "imagenet").file == file
    assert list(file.parent.iterdir()) == [file]
    assert not cache.exists()


def test_a_file_url_of_another_file(tmp_path: Path) -> None:
    file = tmp_path / "tiny.pth"
    file.write_bytes(b"whatever")
    with pytest.raises(UserError, match=r"tiny\.pth is another file .*expected .*sha256:01234567"):
        find_weights(at(file.as_uri(), "01234567"), "imagenet")
    assert file.read_bytes() == b"whatever"


def test_a_file_url_of_no_file(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere" / "tiny.pth"
    with pytest.raises(UserError, match="tiny_1") as caught:
        find_weights(at(missing.as_uri()), "imagenet")
    assert str(missing) in str(caught.value)
    assert not missing.parent.exists()


def test_put_there_by_hand_it_is_used_without_a_request(server: Server, cache: Path) -> None:
    body = b"from another machine"
    url = server.add("/tiny.pth", body)
    cache.mkdir(parents=True)
    (cache / "tiny.pth").write_bytes(body)
    assert find_weights(at(url, sha256_of(body)), "imagenet").file == cache / "tiny.pth"
    assert server.seen == []


def test_a_damaged_file_in_the_cache_is_named_and_left(server: Server, cache: Path) -> None:
    body = saved(tiny().state_dict())
    url = server.add("/tiny.pth", body)
    cache.mkdir(parents=True)
    (cache / "tiny.pth").write_bytes(body[:-700])
    with pytest.raises(UserError, match="delete it for a download") as caught:
        find_weights(at(url, sha256_of(body)), "imagenet")
    assert str(cache / "tiny.pth") in str(caught.value)
    assert server.seen == []
    assert (cache / "tiny.pth").read_bytes() == body[:-700]


def test_damaged_where_no_checksum_tells(server: Server, cache: Path) -> None:
    body = saved(tiny().state_dict())
    url = server.add("/tiny.pth", body)
    cache.mkdir(parents=True)
    (cache / "tiny.pth").write_bytes(body[:-700])
    with pytest.raises(UserError, match="delete it and get it again") as caught:
        build(at(url), "tiny", 10, find_weights(at(url), "imagenet"))
    assert str(cache / "tiny.pth") in str(caught.value)


def test_what_can_not_be_downloaded_names_address_file_and_folder(server: Server, cache: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{unused.getsockname()[1]}/tiny.pth"
        for url, reason in ((server.add("/tiny.pth", b"", 404), "HTTP 404"), (refused, "connection refused")):
            with pytest.raises(UserError, match=reason) as caught:
                find_weights(at(url), "imagenet")
            message = str(caught.value)
            assert url in message
            assert f"get tiny.pth by hand (size unknown, checksum unknown), put it into {cache}" in message
            assert not (cache / "tiny.pth").exists()


def test_auto_without_the_file_warns_and_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server.add("/tiny.pth", b"", 404)
    assert find_weights(at(url), "auto") == NONE
    warning = capsys.readouterr().err
    assert "warning: no pretrained weights, so training starts from random ones" in warning
    assert url in warning


def test_none_asks_nobody(server: Server, cache: Path) -> None:
    found = find_weights(at(server.add("/tiny.pth", b"")), "none")
    assert found == NONE
    assert (found.name, found.file) == ("none", None)
    assert server.seen == []
    assert not cache.exists()


def test_an_unknown_word_lists_what_is_known(tmp_path: Path) -> None:
    known = "imagenet, auto, none, IMAGENET1K_V1, IMAGENET1K_V2"
    for choice, says in (("imagnet", known), (str(tmp_path), "the folder holds no config.json")):
        with pytest.raises(UserError, match=says) as caught:
            find_weights(BACKBONES["resnet"], choice)
        assert f"--weights {choice}: " in str(caught.value)
    with pytest.raises(UserError, match=r"imagenet, auto, none\.$"):
        find_weights(BACKBONES["wavemix"], "IMAGENET1K_V1")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    torch.save(toy.tiny().state_dict(), tmp_path / "mine.pth")
    found = find_weights(toy.TINY, str(tmp_path / "mine.pth"))
    sha256 = sha256_of((tmp_path / "mine.pth").read_bytes())
    assert found == Weights(f"file:mine.pth:{sha256[:12]}", tmp_path / "mine.pth", sha256, IMAGENET_MEAN, IMAGENET_STD)


def test_a_file_that_can_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(weights, "digest", refuse)
    (tmp_path / "mine.pth").touch()
    with pytest.raises(UserError, match=r"mine\.pth: the file can't be read \(Permission denied\)"):
        find_weights(toy.TINY, str(tmp_path / "mine.pth"))


def test_every_enum_was_trained_with_the_same_normalisation() -> None:
    members = {name: entry.pretrained for name, entry in BACKBONES.items()}
    presets = {name: member.transforms() for name, member in members.items() if isinstance(member, WeightsEnum)}
    assert presets.keys() == BACKBONES.keys() - {"wavemix"}
    for name, preset in presets.items():
        assert (tuple(preset.mean), tuple(preset.std)) == (IMAGENET_MEAN, IMAGENET_STD), name


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        dict,
        lambda state: {"model": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda state: {"state_dict": state},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {key: nn.Parameter(value, requires_grad=False) for key, value in state.items()},
    ],
    ids=["plain", "dict", "model", "state_dict", "parallel", "wrapped parallel", "parameters"],
)
def test_a_state_dict_however_it_was_saved(wrap: Callable[[Any], Any], save: Save) -> None:
    state = tiny().state_dict()
    assert_same(load(save(wrap(state))), state)


def named(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda state: named(state, "_orig_mod."), "the names of its tensors without '_orig_mod.'"),
        (lambda state: named(state, "module._orig_mod."), "the names of its tensors without '_orig_mod.module.'"),
        (lambda state: named(state, "_orig_mod.module."), "the names of its tensors without '_orig_mod.module.'"),
        (lambda state: named(state, "model.backbone."), "the names of its tensors without 'model.backbone.'"),
        (lambda state: named(state, "encoder."), "the names of its tensors without 'encoder.'"),
        (
            lambda state: {key.replace(".", "._orig_mod.", 1): value for key, value in state.items()},
            "the names of its tensors without '_orig_mod.'",
        ),
        (
            lambda state: {"epoch": 2, "state_dict": named(state, "model."), "loops": {}},
            "its entry 'state_dict'; the names of its tensors without 'model.'",
        ),
        (lambda state: {"model_state_dict": state, "loss": 0.1}, "its entry 'model_state_dict'"),
        (lambda state: {"state": {}, "model": {"state_dict": state}}, "its entry 'model'; its entry 'state_dict'"),
        (lambda state: {"model": state, "model_ema": {}}, "its entry 'model', not 'model_ema'"),
        (
            lambda state: {"ema": {"n_averaged": torch.tensor(3)} | named(state, "module.")},
            "its entry 'ema'; the names of its tensors without 'module.'",
        ),
    ],
)
def test_a_wrapped_state_dict_is_loaded_and_that_is_said(
    wrap: Callable[[Any], Any], said: str, save: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tiny().state_dict()
    path = save(wrap(state))
    assert_same(load(path), state)
    assert capsys.readouterr().out == f"note: {path}: {said}\n"


def test_a_plain_state_dict_needs_no_word(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    load(save(tiny().state_dict()))
    assert capsys.readouterr().out == ""


def test_names_that_are_the_models_own_stay(save: Save) -> None:
    """Every layer of this one is in its `model`."""
    whole = nn.Module()
    whole.model = tiny()
    found = nn.Module()
    found.model = toy.tiny()
    load_file(found, save(whole.state_dict()), f"model.{HEAD}", "whole")
    assert_same(found, whole.state_dict())


def test_an_encoder_without_a_head(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    """A new one takes its place anyway."""
    state = tiny().state_dict()
    body = {key: value for key, value in state.items() if key not in OF_HEAD}
    assert_same(load(save(named(body, "backbone."))), state, but=OF_HEAD)
    assert "it has no 6, the head" in capsys.readouterr().out


def test_parts_of_two_models_are_refused(save: Save) -> None:
    state = tiny().state_dict()
    with pytest.raises(UserError, match="18 unknown"):
        load(save(named(state, "encoder.") | named(state, "momentum.")))


def test_saved_from_a_parallel_model(save: Save) -> None:
    model = tiny()
    assert_same(load(save(nn.DataParallel(model).state_dict())), model.state_dict())


def test_the_older_file_format(save: Save) -> None:
    state = tiny().state_dict()
    assert_same(load(save(state, _use_new_zipfile_serialization=False)), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_another_dtype_becomes_the_models(dtype: torch.dtype, save: Save) -> None:
    state = {
        key: value.half().float() if value.is_floating_point() else value for key, value in tiny().state_dict().items()
    }
    model = load(save({key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}))
    assert_same(model, state)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_another_number_of_classes_keeps_the_body(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", toy.TINY)
    state = tiny().state_dict() | {f"{HEAD}.weight": torch.ones(37, 32), f"{HEAD}.bias": torch.ones(37)}
    model = build_model("tiny", 5, str(save(state)))
    assert_same(model, state, but=OF_HEAD)
    head = model.get_submodule(HEAD)
    assert isinstance(head, nn.Linear)
    assert head.weight.shape == (5, 32)
    # as many classes as the file has: its head is another task's all the same
    head = build_model("tiny", 37, str(save(state))).get_submodule(HEAD)
    assert isinstance(head, nn.Linear)
    assert not torch.equal(head.weight, torch.ones(37, 32))


def test_layers_that_ask_for_their_version(save: Save) -> None:
    def mnasnet() -> nn.Module:
        return models.mnasnet0_5()  # type: ignore[no-any-return]

    model = mnasnet()
    path = save(nn.DataParallel(model).state_dict())
    found = mnasnet()
    load_file(found, path, "classifier.1", "mnasnet")
    assert_same(found, model.state_dict())


def test_a_file_from_before_batches_were_counted(save: Save) -> None:
    state = tiny().state_dict()
    counts = {key for key in state if key.endswith("num_batches_tracked")}
    assert counts
    model = load(save({key: value for key, value in state.items() if key not in counts}))
    assert_same(model, state, but=counts)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_file_that_was_converted_as_a_whole(dtype: torch.dtype, save: Save) -> None:
    state = tiny().state_dict()
    counts = [key for key in state if key.endswith("num_batches_tracked")]
    for key in counts:
        state[key] = torch.tensor(450_000.3)  # beyond what float16 has
    converted = {key: value.to(dtype) for key, value in state.items()}
    expected = {key: value.float() for key, value in converted.items()}
    assert_same(load(save(converted)), expected, but=counts)


@pytest.mark.parametrize(
    ("index", "right"),
    [
        (torch.arange(169).half(), True),
        (torch.arange(169).bfloat16(), True),
        (torch.arange(169).bfloat16() * 3, False),  # some are others by now
        (torch.arange(169).float() * 0.99, False),
    ],
)
def test_whole_numbers_that_were_converted(index: torch.Tensor, right: bool, save: Save) -> None:
    model = toy.tiny()
    model.register_buffer("index", torch.zeros(169, dtype=torch.int64))
    path = save(model.state_dict() | {"index": index})
    if right:
        assert_same(load(path, model), {"index": torch.arange(169)}, but=toy.tiny().state_dict())
    else:
        with pytest.raises(UserError, match=r"index is of torch\..*, in which its whole numbers can't be told"):
            load(path, model)


def test_weights_of_another_architecture_are_told_in_a_few_words(save: Save) -> None:
    state = models.shufflenet_v2_x0_5().state_dict()
    with pytest.raises(UserError, match=r"does not hold weights of mobilenet: of \d+ tensors, ") as caught:
        load_file(models.mobilenet_v3_small(), save(state), "classifier.3", "mobilenet")
    message = str(caught.value)
    wanted = models.mobilenet_v3_small().state_dict()
    # batches that were not counted are not missed, as in old files
    missing = [key for key in wanted if not key.endswith("num_batches_tracked")]
    assert f"of {len(wanted)} tensors, {len(missing)} missing ({', '.join(missing[:3])} and " in message
    assert f"{len(state)} unknown ({', '.join([*state][:3])} and " in message
    assert "of another shape" not in message
    assert len(message) < 600
    assert message.endswith("name the backbone that it belongs to with -model.")


def test_the_same_names_in_other_shapes(save: Save) -> None:
    state = tiny().state_dict()
    state["0.weight"] = torch.zeros(8, 3, 5, 5)
    state[f"{HEAD}.weight"] = torch.zeros(1000, 64)
    del state["0.bias"]
    state["7.weight"] = torch.zeros(2)
    with pytest.raises(UserError) as caught:
        load(save(state))
    expected = "of 9 tensors, 1 missing (0.bias), 1 unknown (7.weight), "
    assert expected + "2 of another shape (0.weight, 6.weight). Of the 7 beside the head 5 fit (71 %)" in str(
        caught.value
    )


def test_a_head_without_its_bias(save: Save) -> None:
    state = tiny().state_dict()
    del state[f"{HEAD}.bias"]
    with pytest.raises(UserError, match=r"of 9 tensors, 1 missing \(6\.bias\)\. Of the 7 beside the head 7 fit"):
        load(save(state))


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_tensors_of_a_kind_that_does_not_fit(save: Save) -> None:
    state = tiny().state_dict()
    state["0.bias"] = state["0.bias"].to_sparse()
    with pytest.raises(UserError, match=r"holds a pickled torch\._utils\._rebuild_sparse_tensor, and nothing but"):
        load(save(state))


class Malice:
    """Unpickled without care, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_run(save: Save, tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    path = save({"model": tiny().state_dict(), "extra": Malice(harm)})
    with pytest.raises(UserError, match=r"holds a pickled .*, and nothing but tensors is loaded"):
        load(path)
    path.write_bytes(pickle.dumps(Malice(harm), protocol=2))
    with pytest.raises(UserError, match="can't be read as PyTorch weights"):
        load(path)
    assert not harm.exists()
    # it would have been
    pickle.loads(path.read_bytes())
    assert harm.exists()


def test_a_whole_pickled_model_is_refused(save: Save) -> None:
    with pytest.raises(UserError, match=r"holds a pickled torch\.nn\.\S+, and nothing but tensors is loaded"):
        load(save(tiny()))


def cut(body: bytes, size: int) -> bytes:
    assert 0 < size < len(body)
    return body[:size]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00" * 1000,
        b"\x93\x12 no weights at all",
        b"<html>404</html>",
        b"PK\x03\x04" + bytes(100),
        cut(saved(tiny().state_dict()), 100),
        cut(saved(tiny().state_dict()), 100_000),
    ],
    ids=["empty", "zeros", "garbage", "web page", "zip", "cut early", "cut late"],
)
def test_bytes_that_are_no_weights(body: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(body)
    with pytest.raises(UserError, match=r"can't be read as PyTorch weights: .+\.\nIf it was cut short") as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path} ({len(body):,} bytes)")
    # no advice to load it unsafely
    assert "weights_only" not in message
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3),
        [torch.zeros(3)],
        {"epoch": 3, "lr": 0.1},
        {"model": {"0.weight": [1.0, 2.0]}},
        {1: torch.zeros(3)},
    ],
    ids=["tensor", "list", "numbers", "lists", "numbered"],
)
def test_contents_that_are_no_state_dict(content: Any, save: Save) -> None:
    with pytest.raises(UserError, match=r"weights\.pth holds a \w+, not a state dict"):
        load(save(content))


def test_an_empty_state_dict(save: Save) -> None:
    with pytest.raises(UserError, match=r"of 9 tensors, 8 missing"):
        load(save({}))


def loaded_into(name: str, path: Path) -> nn.Module:
    model = BACKBONES[name].build()
    load_file(model, path, BACKBONES[name].head, name)
    return model


def test_the_file_of_an_enum_becomes_a_model(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    state = models.mobilenet_v3_large().state_dict()
    body = saved(state)
    url = server.add(f"/models/mobilenet_v3_large-{sha256_of(body)[:8]}.pth", body)
    monkeypatch.setattr(models.MobileNet_V3_Large_Weights.IMAGENET1K_V2.value, "url", url)
    model = build_model("mobilenet", 5, "imagenet")
    assert_same(model, state, but={"classifier.3.weight", "classifier.3.bias"})
    assert model.get_submodule("classifier.3").weight.shape == (5, 1280)


def test_densenets_published_file_names_its_layers_otherwise(save: Save) -> None:
    expected = models.densenet161().state_dict()
    counts = {key for key in expected if key.endswith("num_batches_tracked")}
    published = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value
        for key, value in expected.items()
        if key not in counts
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    assert "features.denseblock1.denselayer1.norm1.weight" not in published
    assert_same(loaded_into("densenet", save(published)), expected)

    del published["features.denseblock4.denselayer24.conv.2.weight"]
    first = "1 missing (features.denseblock4.denselayer24.conv2.weight)."
    with pytest.raises(UserError, match=re.escape(f"of {len(expected)} tensors, {first}")):
        loaded_into("densenet", save(published))


def test_inceptions_published_file_has_an_auxiliary_head(save: Save) -> None:
    # as torchvision builds it for its pretrained weights
    theirs = models.inception_v3(init_weights=False, transform_input=True).eval()
    published = theirs.state_dict()
    assert any(key.startswith("AuxLogits.") for key in published)
    ours = loaded_into("inception", save(published)).eval()
    images = torch.randn(1, 3, 80, 80)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))

    del published["Mixed_7c.branch_pool.conv.weight"]
    first = "1 missing (Mixed_7c.branch_pool.conv.weight)."
    with pytest.raises(UserError, match=re.escape(f"of {len(ours.state_dict())} tensors, {first}")):
        loaded_into("inception", save(published))


def test_wavemixs_file_has_the_packages_names(save: Save) -> None:
    published = package_wavemix(1000).state_dict()
    assert_same(loaded_into("wavemix", save(published)), published)
