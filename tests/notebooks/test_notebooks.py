"""The notebooks: kept without outputs, and each shows what it says it shows."""

from __future__ import annotations

import base64
import io
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from jupyter_client.manager import AsyncKernelManager
from matplotlib.colors import to_rgb
from nbclient import NotebookClient
from nbclient.util import run_sync
from nbformat import NotebookNode
from PIL import Image

from spatial_lightning.evaluation import summarise
from spatial_lightning.records import BadRows, Question
from spatial_lightning.runs.answering import Answered, Asked, by_family, write_samples
from spatial_lightning.runs.config import PROJECT, ConfigError, compose_run
from spatial_lightning.runs.directory import config_hash, write_config, write_summary
from spatial_lightning.runs.loggers import finish_loggers, make_loggers
from spatial_lightning.runs.notebooks import Framed, kind_rows, open_run, open_sweep, where_they_differ
from spatial_lightning.runs.row_plots import SORTS
from spatial_lightning.runs.samples import read_samples

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
EXPERIMENTS = ("dpo_vit_unfrozen", "fdpo_vit_unfrozen")
SEEDS = (0, 1)
Shown = list[list[dict[str, Any]]]
"""What each code cell shows, by MIME type; what it prints is ``text/plain`` of its own."""


def questions(pictures: Sequence[Path]) -> list[Asked]:
    kinds = ("left_right", "left_right_choice", "tall_short")
    return [
        ((pictures[i % 3],), Question(f"q{i}", f"Is thing {i} there?", "yes", kinds[i % 3], ("yes", "no")))
        for i in range(12)
    ]


def write_run(run: Path, pictures: Sequence[Path], experiment: str, seed: int, right: Callable[[int], bool]) -> None:
    """What a training run leaves behind, by the project's own writers, without the training."""
    config = compose_run([f"+experiment={experiment}", f"seed={seed}"])
    write_config(run, config)
    asked = questions(pictures)
    columns = {}
    for name, verdict in (("warm start", lambda i: i % 2 == 0), ("after", right)):
        answers = ["yes" if verdict(i) else "no" for i in range(len(asked))]
        columns[name] = Answered(answers, summarise(by_family(asked), answers))
    write_samples(run, asked, columns)
    loggers = make_loggers(run, {"wandb": "off"}, {})
    for step in range(3):
        loggers[0].log_metrics({"train/loss": 1.0 / (1 + step + seed), "train/reward_margin": 0.1 * step}, step)
    loggers[0].save()
    finish_loggers(loggers)
    write_summary(
        run,
        {
            "experiment": experiment,
            "objective": str(config.objective["_target_"]).rpartition(".")[2],
            "corpus": "things",
            "seed": seed,
            "git_sha": "abc1234",
            "config_hash": config_hash(config),
            "metrics": columns["after"].metrics(),
            "baseline": {"majority": {"accuracy": 0.5}, "warm_start": columns["warm start"].metrics()},
            "wall_s": 10.0 + seed,
            "steps": 3,
        },
    )


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, pictures: tuple[Path, ...]) -> Path:
    """Two experiments with two seeds each; fDPO is right on more questions than DPO."""
    folder = tmp_path_factory.mktemp("outputs") / "study" / "now"
    for number, (experiment, seed) in enumerate((name, seed) for name in EXPERIMENTS for seed in SEEDS):
        better = experiment == "fdpo_vit_unfrozen"
        write_run(
            folder / str(number), pictures, experiment, seed, lambda i, own=seed, ok=better: ok or (i + own) % 3 == 0
        )
    (folder / "sweep.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory, sweep: Path) -> Iterator[AsyncKernelManager]:
    """One kernel for all notebooks, which takes seconds to load what they import; without network, all its files apart."""
    place = tmp_path_factory.mktemp("kernel")
    small = f"cache={place / 'cache'} data.train_images=2 data.val_images=1"
    variables = {
        "SPATIAL_LIGHTNING_RUN": str(sweep / "3"),
        "SPATIAL_LIGHTNING_SWEEP": str(sweep),
        "SPATIAL_LIGHTNING_OVERRIDES": shlex.join(small.split(" ")),
        "TMPDIR": str(place),
        "HF_HUB_OFFLINE": "1",
        # Nobody listens there, so that whatever asks for a page fails at once.
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "JUPYTER_NO_CONFIG": "1",
        "IPYTHONDIR": str(place / "ipython"),
        **{f"JUPYTER_{name}_DIR": str(place / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        for name in ("JUPYTER_PATH", "JUPYTER_CONFIG_PATH"):
            patch.delenv(name, raising=False)
        manager = AsyncKernelManager(kernel_name="python3")
        yield manager
        run_sync(manager.shutdown_kernel)(now=True)


def execute(path: Path, kernel: AsyncKernelManager) -> Shown:
    """Run a notebook; whatever goes wrong in a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    # A notebook must not lean on names that another one left behind in the kernel.
    first = nbformat.v4.new_code_cell("%reset -f\nimport sys\nprint(sys.executable)")
    notebook.cells.insert(0, first)
    client = NotebookClient(notebook, km=kernel, timeout=120)
    try:
        client.execute()
    finally:
        # A client leaves a kernel alone that was handed to it, and with it the sockets to it.
        if client.kc is not None:
            client.kc.stop_channels()
    cells = [[_shown(output) for output in cell.outputs] for cell in notebook.cells if cell.cell_type == "code"]
    assert Path(cells[0][0]["text/plain"].strip()) == Path(sys.executable)
    return cells[1:]


def _shown(output: NotebookNode) -> dict[str, Any]:
    return {"text/plain": output.text} if output.output_type == "stream" else dict(output.data)


def of_type(cells: Shown, kind: str) -> list[str]:
    return [shown[kind] for cell in cells for shown in cell if kind in shown]


def colours(png: str) -> set[tuple[int, ...]]:
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))
    return set(map(tuple, picture.reshape(-1, 3).tolist()))


def colour(name: str) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in to_rgb(SORTS[name]))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    for cell in code:
        assert (cell["outputs"], cell["execution_count"], cell["metadata"]) == ([], None, {})
        assert len(cell["source"]) <= 25
    for before, cell in zip(notebook["cells"], notebook["cells"][1:], strict=False):
        assert cell["cell_type"] != "code" or before["cell_type"] == "markdown", "every cell has its sentence"


def read_a_run(cells: Shown) -> None:
    summary, *captions, by_kind = of_type(cells, "text/markdown")
    assert "`fdpo_vit_unfrozen`" in summary
    assert "| seed | `1` |" in summary
    assert any("Loss" in caption for caption in captions)
    assert len(of_type(cells, "image/png")) == len(captions)
    # Both forms of one relation are a kind; 8 of 8 right has a Wilson interval from 67.6 %.
    assert "| left_right | 8 | 50.0 [21.5, 78.5] | 100.0 [67.6, 100.0] |" in " ".join(by_kind.split())
    assert any("6 gained, 0 lost" in text for text in of_type(cells, "text/plain"))
    (page,) = of_type(cells, "text/html")
    assert page.count("data-change=&quot;gained&quot;") == 6
    assert page.count("&lt;img") == 6


def compare_a_sweep(cells: Shown) -> None:
    table, *captions = of_type(cells, "text/markdown")
    assert all(f"| {experiment} " in table for experiment in EXPERIMENTS)
    assert "baseline" in table
    assert "+66.7 [" in table
    assert len(of_type(cells, "image/png")) == len(captions) >= 2
    said = "".join(of_type(cells, "text/plain"))
    assert "4 runs in 2 groups answered the same 12 questions on 3 pictures" in said
    assert "Differences are to dpo_vit_unfrozen" in said
    (page,) = of_type(cells, "text/html")
    assert "differ on 12 of 12 questions" in page
    assert page.count("&lt;article") == 12


def look_inside_a_batch(cells: Shown) -> None:
    images = of_type(cells, "image/png")
    assert len(images) == 6
    masks = [colours(image) for image in images[1::2]]
    assert {colour("context"), colour("description"), colour("reasoning"), (255, 255, 255)} <= masks[0]
    for mask in masks[1:]:
        assert {colour("context"), colour("trained"), (255, 255, 255)} <= mask
        assert colour("reasoning") not in mask
    pairs, questions_page = of_type(cells, "text/html")
    assert pairs.count("&lt;mark class=&quot;reasoning&quot; title") == 4
    assert questions_page.count("branch ") >= 16
    row, path_tokens = next(
        [int(word) for word in text.split() if word.isdigit()][:2]
        for text in of_type(cells, "text/plain")
        if "tokens in the row" in text
    )
    assert row < path_tokens


CHECKS = {check.__name__: check for check in (read_a_run, compare_a_sweep, look_inside_a_batch)}


def test_notebooks_are_found() -> None:
    assert set(CHECKS) <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_show_what_they_say(path: Path, kernel: AsyncKernelManager) -> None:
    cells = execute(path, kernel)
    assert of_type(cells, "image/png")
    if path.stem in CHECKS:
        CHECKS[path.stem](cells)


def test_the_newest_run_and_the_newest_sweep_are_opened(sweep: Path) -> None:
    outputs = sweep.parent.parent
    run = open_run(outputs=outputs)
    assert (run.name, run.seed, run.path) == ("fdpo_vit_unfrozen", 1, sweep / "3")
    (section,), unused = open_sweep(outputs=outputs)
    assert [group.name for group in section.groups] == list(EXPERIMENTS)
    assert [group.seeds for group in section.groups] == [SEEDS, SEEDS]
    assert unused == []


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "error.txt").write_text("Traceback (most recent call last):\n  File\nValueError: too hot\n")
    with pytest.raises(ConfigError, match="failed: ValueError: too hot"):
        open_run(str(tmp_path))
    with pytest.raises(ConfigError, match="no finished run below"):
        open_run(outputs=tmp_path)
    with pytest.raises(ConfigError, match="no sweep with a finished run below"):
        open_sweep(outputs=tmp_path)
    with pytest.raises(ConfigError, match="can be compared; the first: .*too hot"):
        open_sweep(str(tmp_path))


def test_groups_differ_where_their_shares_do(sweep: Path) -> None:
    (section,), _ = open_sweep(str(sweep))
    first, second = EXPERIMENTS
    two = where_they_differ(section, first, second)
    # Of DPO's two seeds each is right on a third of the questions, and fDPO on all.
    assert len(two.questions) == 12
    assert [group.right.shape for group in two.groups] == [(2, 12), (2, 12)]
    assert not where_they_differ(section, first, first).questions


def test_figures_by_kind_are_those_of_the_run(sweep: Path) -> None:
    rows = read_samples(sweep / "0" / "samples.jsonl", BadRows())
    *kinds, everything = kind_rows(rows)
    assert [row["question kind"] for row in kinds] == ["left_right", "tall_short"]
    assert [row["n"] for row in (*kinds, everything)] == ["8", "4", "12"]
    accuracy = json.loads((sweep / "0" / "summary.json").read_text())["metrics"]["accuracy"]
    assert everything["after"].startswith(f"{100 * accuracy:.1f} [")


def test_a_page_is_framed_whole(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<p class="a">5 < 6 & "so"</p>', encoding="utf-8")
    shown = Framed(page)._repr_html_()
    assert 'srcdoc="&lt;p class=&quot;a&quot;&gt;5 &lt; 6 &amp; &quot;so&quot;&lt;/p&gt;"' in shown
