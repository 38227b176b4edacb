"""Training as the published comparison's scripts do it, in a process of its own that may fail without taking this."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

import common
from engine.errors import RunError, UserError
from engine.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from engine.models.wavemix_model import package_wavemix
from engine.training.meters import peak_memory_mib

WORKERS = 2  # the original's
CLASSES = 101
LOOK_SECONDS = 1.0  # between two looks at whether the process still lives
GOODBYE_SECONDS = 20.0  # that the process is given to end by itself


def plain_model(name: str, device: str) -> nn.Module:
    """The backbone as the original has it, on `device`: WaveMix's package, torchvision's builder."""
    if name != "wavemix":
        return common.build_model(name, CLASSES, "none").to(device)
    model: nn.Module = package_wavemix(CLASSES)
    import wavemix

    # its wavelet transforms are globals of the package, which moving a model leaves where they are
    for transform in (wavemix.xf1, wavemix.xf2, wavemix.xf3, wavemix.xf4):
        transform.to(device)
    return model.to(device)


class Plain:
    """The original's training loop."""

    def __init__(self, name: str, folder: Path, size: int, batch_size: int, steps: int, device: str) -> None:
        torch.manual_seed(0)
        self.model = plain_model(name, device).train()
        self.device, self.steps, self.batch_size = device, steps, batch_size
        transform = transforms.Compose(
            [
                transforms.TrivialAugmentWide(),
                transforms.Resize((size, size)),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )
        dataset = ImageFolder(str(folder), transform)
        self.loader = DataLoader(
            dataset, batch_size, shuffle=True, num_workers=WORKERS, pin_memory=device == "cuda", drop_last=True
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01)
        self.criterion = nn.CrossEntropyLoss()
        self.scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
        start = time.perf_counter()
        self.batches = iter(self.loader)
        self.batch = next(self.batches)
        self.resident = [tensor.to(device) for tensor in self.batch]
        self.fill_seconds = 3 * (time.perf_counter() - start)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Forward outside autocast, and a loss that is read at once."""
        images, labels = images.to(self.device), labels.to(self.device)
        self.optimizer.zero_grad()
        outputs = self.model(images)
        with torch.autocast(self.device, torch.bfloat16 if self.device == "cpu" else torch.float16):
            loss = self.criterion(outputs, labels)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.accuracy = (outputs.argmax(1) == labels).float().mean().item()
        return float(loss.item())

    def end_to_end(self) -> float:
        """Images/s with the loader, in the middle of its epoch: its workers' queues are full before and after."""
        start = time.perf_counter()
        for _ in range(self.steps):
            self.step(*self.batch)
            self.batch = next(self.batches)
        seconds = time.perf_counter() - start
        time.sleep(self.fill_seconds)
        return self.steps * self.batch_size / seconds

    def alone(self) -> float:
        """Images/s of the step alone."""
        start = time.perf_counter()
        for _ in range(self.steps):
            self.step(*self.resident)
        return self.steps * self.batch_size / (time.perf_counter() - start)

    def answer(self, asked: str) -> float | None:
        """Images/s of "plain" or "step", or the "memory" in MiB that was used at most."""
        if asked == "memory":
            return peak_memory_mib(self.device)
        return self.alone() if asked == "step" else self.end_to_end()


def reason_of(problem: BaseException) -> str:
    """What went wrong, in a line."""
    if isinstance(problem, UserError):  # with what to do about it
        return " ".join(str(problem).split())
    whole = str(problem) if isinstance(problem, RunError) else f"{type(problem).__name__}: {problem}"
    return whole.partition("\n")[0].removesuffix(": ")[:200]


def serve(connection: Connection, *given: Any) -> None:
    """Be Plain, and answer what the other end asks, until it asks for nothing; what fails is answered as its reason."""
    # a process that was spawned would spawn its loader's workers, each of which imports PyTorch anew
    multiprocessing.set_start_method(None, force=True)
    plain: Plain | None = None
    with contextlib.suppress(EOFError, BrokenPipeError):  # the other end is gone
        while asked := connection.recv():
            try:
                plain = plain or Plain(*given)
                answer: Any = plain.answer(asked)
            except Exception as problem:  # whatever it is, it is this column's alone
                answer = reason_of(problem)
            connection.send(answer)


class Apart:
    """Plain in a process of its own, where nothing is as engine.device prepares it."""

    def __init__(self, *given: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *given))
        self.process.start()
        theirs.close()

    def measure(self, column: str) -> float:
        """Images/s of "plain" or "step". Raises RunError, with the reason, when it fails or its process ends."""
        answer = self._ask(column)
        if not isinstance(answer, float):
            raise RunError(str(answer))
        return answer

    def peak_memory_mib(self) -> float | None:
        """The most memory that it used, as engine.training.meters counts it, without its loader's workers.

        None where nobody reports it, or where the process failed.
        """
        with contextlib.suppress(RunError):
            answer = self._ask("memory")
            return answer if isinstance(answer, float) else None
        return None

    def _ask(self, what: str) -> Any:
        try:
            self.connection.send(what)
            # its loader's workers hold the other end of the pipe too: it can stay open without the process
            while not self.connection.poll(LOOK_SECONDS):
                if not self.process.is_alive() and not self.connection.poll():
                    raise EOFError
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join(LOOK_SECONDS)
            raise RunError(f"its process ended with exit code {self.process.exitcode}") from None

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            # after a failure nobody waits for what it may be in the middle of
            if kind is None:
                with contextlib.suppress(OSError):
                    self.connection.send(None)
                self.process.join(GOODBYE_SECONDS)
        finally:
            self.process.kill()
            self.process.join()
            self.connection.close()
