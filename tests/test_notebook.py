"""docs/notebook.ipynb, run by a kernel of Jupyter's; and which progress bar there is where."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path

import nbclient
import nbformat
import pytest
import tqdm.notebook

from engine.console import bar, in_notebook, progress
from engine.paths import PROJECT


def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that has what it needs of the project, where it leaves what it makes."""
    for each in (*PROJECT.glob("*.py"), *(PROJECT / name for name in ("engine", "reporting"))):
        (tmp_path / each.name).symlink_to(each)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    notebook = nbformat.read(PROJECT / "docs" / "notebook.ipynb", 4)
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook.cells)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "shufflenet on photos, 30 test images: top-1 " in printed
    assert "Traceback" not in printed
    assert {output.name for output in outputs if output.output_type == "stream"} == {"stdout"}
    shown = {kind for output in outputs for kind in output.get("data", {})}
    assert "application/vnd.jupyter.widget-view+json" in shown  # the bars
    assert "| shufflenet |" in " ".join(output.data.get("text/markdown", "") for output in outputs if "data" in output)
    assert len([*tmp_path.glob("runs/*/*/*/record.json")]) == 2


@pytest.fixture
def _as_in_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))


def test_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", None)
    assert not in_notebook()
    for shell in (None, types.SimpleNamespace(config={})):  # a script; IPython on a terminal
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda found=shell: found))
        assert not in_notebook()


@pytest.mark.usefixtures("_as_in_a_kernel")
def test_a_bar_in_a_notebook() -> None:
    shown = bar(total=2, desc="photos", leave=False)
    assert isinstance(shown, tqdm.notebook.tqdm)
    shown.update(2)
    shown.close()


@pytest.mark.usefixtures("_as_in_a_kernel")
def test_a_notebook_without_widgets_has_lines_alone(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr("engine.console.find_spec", lambda _: None)
    monkeypatch.setattr("sys.stderr", stderr := io.StringIO())
    assert [*progress([1, 2], "epoch 1", 2)] == [1, 2]
    assert stderr.getvalue() == ""
    assert not recwarn.list
