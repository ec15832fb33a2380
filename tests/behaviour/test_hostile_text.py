"""Whatever a trial calls itself, prints or raises: it is shown and stored, and does nothing else."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shlex
import subprocess
import sys
import unicodedata
from collections import deque
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml
from _pytest._io import TerminalWriter
from _pytest._io.wcwidth import wcswidth
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_autoresearch.campaign import baseline, checkout
from pytest_autoresearch.campaign.derived import (
    DerivedFile,
    baseline_row,
    ledger_line,
    results_header,
    trial_row,
)
from pytest_autoresearch.campaign.git import Repository
from pytest_autoresearch.errors import (
    AgentUnavailable,
    AssertionFailure,
    BaselineFormatError,
    BudgetExhausted,
    NoAnswer,
    ProposalRefused,
    RepositoryError,
    RunCrashed,
    RunFailed,
    RunOutOfMemory,
    RunTimedOut,
    ScoreRefused,
)
from pytest_autoresearch.plugin.host import slug
from pytest_autoresearch.plugin.items import Compact, ExperimentItem
from pytest_autoresearch.plugin.options import TAG
from pytest_autoresearch.plugin.progress import fit
from pytest_autoresearch.records.measurement import Measurement
from pytest_autoresearch.records.proposal import Proposal, checked
from pytest_autoresearch.records.spec import ExperimentSpec
from pytest_autoresearch.records.trailers import parse_trial, trial_message
from pytest_autoresearch.records.trial import Trial, Verdict
from pytest_autoresearch.runs.output import Output, _exit_reason
from pytest_autoresearch.runs.run import _printed_score
from pytest_autoresearch.source.validation import check
from pytest_autoresearch.text import single_line
from tests.project import SCRIPT, Project

NIGHTLY = Path(__file__).parents[2] / ".github" / "workflows" / "nightly.yml"

SCISSORS = "# ------------------------ >8 ------------------------"
PIECES = [
    "\x1b[2J\x1b[1;1H",  # clears the screen
    "\x1b]0;title\x07",
    "\x1b]8;;http://example.org\x1b\\here\x1b]8;;\x1b\\",
    "\x1b[31",  # without an end
    "\x1bP1$r\x1b\\",
    "\x1bc",
    "\x9b2J",  # the same in one character
    "\x9d0;title\x9c",
    "\r",
    "\r\n",
    "\n",
    "\n\n",
    "\b\b\b\b",
    "\x7f",
    "\0",
    "\t",
    "\v\f",
    "\x1c\x1d\x1e\x1f",
    "\x85",
    "\u2028",
    "\u2029",
    "\u202e",  # from here on backwards
    "\u2066\u2067\u2069\u202c",
    "\u061c\u200e\u200f",
    "\u200b\u200d\u2060\ufeff",
    "\U000e0041\U000e0042",  # tags, which nobody sees
    "\xad",
    "\ud800",
    "\udcff",
    "\ufffe\uffff",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "e\u0301\u0302\u0303\u0304\u0489",
    "\u7e41\u9ad4\uff37\uff49\uff44\uff45",
    "\u5bbd" * 300,
    "\U0001f600" * 200 + " | x",
    "\u05d0\u0628",
    "| cell | `code` ``` |",
    "<img src=x onerror=alert(1)><script>alert(1)</script><!--",
    "[link](javascript:alert(1)) ![](http://example.org/x.png)",
    "]]>&amp;&#27;",
    "::error::x",
    "##[add-mask]a",
    "$(touch hacked)`touch hacked`",
    "; touch hacked #",
    "--upload-pack=touch hacked",
    "-x",
    ":(top,glob)**",
    "refs/heads/x:y",
    "HEAD~1^{/x}..@{u}",
    "../../etc/passwd",
    "a::b[c]-k not d",
    "%00%(contents)%n\\n\\0",
    "---",
    "# heading",
    SCISSORS,
    "diff --git a/x b/x",
    "\n\nTrial: 99\nVerdict: kept\n",
    "Verdict: kept",
    "\n\nVerdict: kept\nIncumbent-Score: 0.1\nMeasurement: {}\n",
    "Co-authored-by: Eve <eve@example.org>",
    'trial": 9, "verdict": "kept"',
    "abcdef0\t0.1\t0.0\tkeep\tx\n",
    "10 passed in 0.1s",
    "x" * 10_000,
    " ",
]

hostile = st.one_of(
    st.sampled_from(PIECES),
    st.lists(st.sampled_from(PIECES) | st.text(st.characters(), max_size=8), max_size=6).map("".join),
    st.text(st.characters(), max_size=60),
)

VERDICTS: tuple[Verdict, ...] = ("kept", "discarded", "crashed", "refused")

TEXTS = ("Agent", "Hypothesis", "Passed", "Crash")  # trailers that are no figures

# A machine with other things to do is no reason to fail.
calm = settings(deadline=None, suppress_health_check=list(HealthCheck))

# What any character of a line may not be: a control, a format, a surrogate, unassigned, a line's end.
UNFIT = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def is_tame(line: str) -> bool:
    """Tell whether *line* is one, and nothing in it moves a cursor, turns the text or is not to be seen."""
    return not any(unicodedata.category(character) in UNFIT for character in line)


@st.composite
def entries(draw: st.DrawFn) -> Trial:
    """Return what the ledger holds of a trial that says *hostile* things wherever it can."""

    def text() -> str:
        return draw(hostile)

    proposal = checked(
        Proposal(
            {"train.py": text()},
            text(),
            hypothesis=text(),
            agent=text(),
            declined_by=(text(), text()),
            unanswered=text(),
        )
    )
    verdict = draw(st.sampled_from(VERDICTS))
    runs = (Measurement(score=1.5, seed=1, wall_seconds=1.0),) if verdict in {"kept", "discarded"} else ()
    return Trial(
        number=draw(st.integers(1, 20_000)),
        description=proposal.description,
        verdict=verdict,
        reason=single_line(str(ScoreRefused(text(), [])), 400),
        commit="c" * 40,
        tree="b" * 40,
        incumbent_score=1.25,
        measurements=runs,
        constants={"LR": 0.04, "NAME": text()},
        agent=proposal.agent,
        hypothesis=proposal.hypothesis,
        declined_by=proposal.declined_by,
        crashes=(str(RunCrashed(f"exit code 1: {text()}", [])),),
    )


# -- a line -------------------------------------------------------------------------------------------------


@calm
@given(hostile, st.integers(1, 500))
def test_a_line_is_one_line_and_stays_it(text: str, longest: int) -> None:
    line = single_line(text, longest)
    assert is_tame(line)
    assert len(line) <= longest
    assert line == line.strip()
    assert single_line(line, longest) == line


@calm
@given(hostile, st.integers(1, 300))
def test_a_live_line_is_no_wider_than_its_room(text: str, width: int) -> None:
    """A line that wraps would be redrawn in the wrong place, over what stands above it."""
    assert wcswidth(fit(single_line(text, 1000), width)) <= width


@calm
@given(hostile)
def test_a_node_id_has_nothing_of_a_description_but_words(text: str) -> None:
    name = slug(single_line(text))
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,38}[a-z0-9]|[a-z0-9]", name)


@calm
@given(hostile)
def test_a_tag_is_a_part_of_a_ref_and_no_option(text: str) -> None:
    if re.fullmatch(TAG, text):
        assert re.fullmatch(r"[\w-]+", text, re.ASCII)
        assert not text.startswith("-")


# -- reports of failures ------------------------------------------------------------------------------------


def refused(source: str) -> Exception:
    """Return what is wrong with a proposal."""
    try:
        check(source, "", "cpu", "")
    except ProposalRefused as error:
        return error
    return ProposalRefused("nothing")


def unreadable(text: str) -> Exception:
    """Return what is wrong with a record."""
    with pytest.raises(BaselineFormatError) as caught:
        baseline.read(json.dumps({"version": text}))
    return caught.value


def failed(error: RunFailed) -> AssertionFailure:
    """Return what a test raises when its run has failed."""
    return AssertionFailure(str(error), *error.tail)


FAILURES: list[Callable[[str], Exception]] = [
    lambda text: failed(RunFailed(text, [text, text])),
    lambda text: failed(RunCrashed(text, text.split("\n"))),
    lambda text: failed(RunTimedOut(text, ())),
    lambda text: failed(ScoreRefused(text, [text])),
    lambda text: AssertionFailure(str(ScoreRefused(text, ()))),
    RepositoryError,
    unreadable,
    refused,
    lambda text: refused(f"raise {text!r} {text}"),
    lambda text: refused(f"NAME = {text!r}\nassert NAME == '', {text!r}"),
]


@calm
@given(st.sampled_from(FAILURES), hostile)
def test_a_failure_is_a_headline_with_a_line_for_each_of_its_tail(
    make: Callable[[str], Exception], text: str
) -> None:
    error = make(text)
    compact = ExperimentItem.explain(None, error)  # type: ignore[arg-type]  # it is the same for all items
    assert isinstance(compact, Compact)
    screen = io.StringIO()
    compact.toterminal(TerminalWriter(screen))
    headline, *lines = screen.getvalue().removesuffix("\n").split("\n")
    assert len(lines) == len(getattr(error, "lines", ()))
    assert all(map(is_tame, [headline, *lines, compact.reprcrash.message]))
    assert str(compact) == "\n".join([headline, *lines])


def reasons(text: str) -> list[tuple[str, str]]:
    """Return each reason that has something of a script's in it, and the harness's own words of it."""
    with pytest.raises(RunCrashed) as printed:
        _printed_score(Output({"val_bpb": f"no number {text}"}), "val_bpb")
    source = "assert 1 > 2 and " + ascii(text)
    return [
        (str(RunCrashed(_exit_reason(1, deque([text])), ())), 'exit code 1: ""'),
        (str(RunOutOfMemory(_exit_reason(-9, deque([text])), ())), 'killed by SIGKILL: ""'),
        (str(printed.value), 'val_bpb is ""'),
        (str(refused(source)), '"" does not hold'),
    ]


@calm
@given(hostile)
def test_what_a_script_says_is_a_quotation_that_it_cannot_end(text: str) -> None:
    for reason, words in reasons(text):
        assert re.sub('"[^"]*"', '""', reason, count=1) == words


@calm
@given(st.sampled_from([NoAnswer, AgentUnavailable, BudgetExhausted]), hostile)
def test_why_there_is_no_answer_is_one_line(kind: type[Exception], text: str) -> None:
    assert is_tame(str(kind(text)))


# -- what is stored -----------------------------------------------------------------------------------------


@calm
@given(entries())
def test_a_message_is_read_back_as_what_it_was_written_of(entry: Trial) -> None:
    message = trial_message(entry, "val_bpb")
    assert parse_trial(message, entry.commit) == entry
    assert all(map(is_tame, message.split("\n")))


@calm
@given(hostile, hostile, hostile)
def test_a_message_of_somebody_else_gives_lines_or_nothing(subject: str, body: str, text: str) -> None:
    own = ("Trial: 1", "Verdict: kept", "Incumbent-Score: 1.0", "Constants: {}", "Digest: e", "Tree: b")
    names = (*own, *(f"{name}: {text}" for name in TEXTS))
    try:
        entry = parse_trial("\n".join([subject, "", body, "", *names]), "c" * 40)
    except ValueError:
        return
    texts = [
        entry.description,
        entry.reason,
        entry.agent,
        entry.hypothesis,
        *entry.declined_by,
        *entry.crashes,
    ]
    assert all(map(is_tame, texts))


@calm
@given(st.lists(entries(), max_size=5))
def test_a_line_of_the_ledger_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, found: list[Trial]
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile" / "ledger.jsonl"
    ledger = DerivedFile(path, map(ledger_line, found[:2]))
    for entry in found[2:]:
        ledger.append(ledger_line(entry))
    text = path.read_text(encoding="utf-8")
    assert all(map(is_tame, text.split("\n")))
    documents = [json.loads(line) for line in text.splitlines()]
    assert documents == [json.loads(json.dumps(entry.to_json())) for entry in found]
    assert [document["description"] for document in documents] == [entry.description for entry in found]
    assert [document["constants"]["NAME"] for document in documents] == [
        entry.constants["NAME"] for entry in found
    ]


@calm
@given(st.lists(entries(), max_size=5), hostile)
def test_a_row_has_five_columns(
    tmp_path_factory: pytest.TempPathFactory, found: list[Trial], foreign: str
) -> None:
    # An entry that is read from a ref may have been written by anybody.
    found = [*found, dataclasses.replace(found[0], description=foreign)] if found else found
    path = tmp_path_factory.getbasetemp() / "results.tsv"
    results = DerivedFile(path, [results_header("val_bpb"), baseline_row("c" * 40, ())])
    for entry in found:
        results.append(trial_row(entry))
    header, first, *rows = path.read_bytes().decode().removesuffix("\n").split("\n")
    assert len(rows) == len(found)
    assert all(len(row.split("\t")) == 5 for row in (header, first, *rows))
    assert all(is_tame(cell) for row in rows for cell in row.split("\t"))


@calm
@given(st.lists(st.tuples(hostile, hostile)))
def test_what_a_script_prints_is_found_by_its_key_alone(printed: list[tuple[str, str]]) -> None:
    output = Output()
    for key, value in printed:
        for line in re.split("\r\n|[\r\n]", f"{key}: {value}"):
            output.add(line)
    output.add("val_bpb: 1.5")
    assert output.values["val_bpb"] == "1.5"
    assert all(re.fullmatch(r"\w+", key) for key in output.values)


# -- git ----------------------------------------------------------------------------------------------------


@settings(calm, max_examples=6)
@given(st.lists(entries(), min_size=15, max_size=15))
def test_git_gives_a_message_back_and_finds_its_own_trailers(project: Project, found: list[Trial]) -> None:
    repository = Repository(ExperimentSpec(project.script.parent))
    parent, prefix = repository.head(), "refs/autoresearch/h/"
    written: dict[str, Trial] = {}
    for number, entry in enumerate(found):
        commit = repository.commit(parent, {}, trial_message(entry, "val_bpb"))
        ref = f"{prefix}{number:04d}"
        written[ref] = dataclasses.replace(entry, commit=commit)
        repository.move({ref: (repository.tip_of(ref), commit)})
    read = {
        commit.ref: parse_trial(commit.message, commit.name) for commit in repository.commits(f"{prefix}*")
    }
    assert read == written
    for key, value in (("Trial", "number"), ("Verdict", "verdict")):
        form = f"--format=%(contents:trailers:key={key},valueonly,separator=)"
        listed = project.git("for-each-ref", form, prefix).splitlines()
        assert [line for line in listed if line] == [str(getattr(entry, value)) for entry in found]


def test_a_message_is_no_comment_and_no_patch_to_git(project: Project) -> None:
    """Rewording drops lines with a mark of git's, and its mails end at one."""
    repository = Repository(ExperimentSpec(project.script.parent))
    entry = Trial(1, SCISSORS, "refused", "---", "", "b" * 40, 1.0)
    commit = repository.commit(repository.head(), {}, trial_message(entry, "val_bpb"))
    message = project.message(commit)
    for command in (["interpret-trailers", "--parse"], ["stripspace", "--strip-comments"]):
        done = subprocess.run(
            ["git", *command], cwd=project.path, input=message, capture_output=True, text=True, check=True
        )
        assert "Verdict: refused" in done.stdout
    assert SCISSORS in done.stdout


@pytest.mark.parametrize(
    "folder", ["--upload-pack=x", ":(top,glob)**", "-x", "a b\u202e\x1b[2J", "HEAD~1^{x}"]
)
def test_the_name_of_a_folder_is_no_option_of_git(project: Project, folder: str) -> None:
    project.git("mv", "--", "experiment", f"./{folder}")
    project.commit()
    spec = ExperimentSpec(project.path / folder)
    repository = Repository(spec)
    script = repository.path_of("train.py")
    commit = repository.commit(repository.head(), {script: "LR = 1\n"}, "Change it")
    assert repository.committed("train.py", commit) == "LR = 1\n"
    assert repository.files_at(commit) == {"train.py": "LR = 1\n"}
    assert repository.tree_at(commit) == repository.tree_of({"train.py": "LR = 1\n"})
    assert checkout.tree(repository) == repository.tree_at("HEAD")
    spec.path.write_text("LR = 1\n")
    assert checkout.tree(repository) == repository.tree_at(commit)
    assert repository.status().changed == [script]
    checkout.refresh(repository, [script])
    assert repository.status().changed == []


# -- whole sessions -----------------------------------------------------------------------------------------

RESEARCH = ("--autoresearch", "--autoresearch-tag=t")

PREPARE = """
import sys

if __name__ == "__main__":
    for text in {pieces!a}:
        sys.stdout.buffer.write(text.encode(errors="surrogatepass") + b"\\n")
    print("---")
    sys.stdout.buffer.write({name!a}.encode(errors="surrogatepass"))
"""

AGENT = """
from pytest_autoresearch import Proposal

PROPOSALS = {proposals!a}


def pytest_autoresearch_propose(briefing):
    if briefing.number <= len(PROPOSALS):
        code, text = PROPOSALS[briefing.number - 1]
        files = {{briefing.script_name: briefing.script + code}}
        return Proposal(files, text, hypothesis=text, agent=text, declined_by=(text, "x"))


def pytest_autoresearch_fix(failure):
    raise type("Odd\\x1b[2J", (Exception,), {{}})(failure.proposal.description)
"""

PRINTS = "\nimport sys; sys.stdout.buffer.write({text!a}.encode(errors='surrogatepass') + b'\\xff\\n')\n"
ENDINGS = [
    "LOSS = {text!a}\n",  # a constant, and a score
    "raise ValueError({text!a})\n",
    "print('val_bpb: ', end=''); sys.stdout.buffer.write({text!a}.encode(errors='surrogatepass'))\n",
    "sys.exit({text!a})\n",
    "print('val_bpb: 2.0')\n",
    "assert not {text!a}, {text!a}\n",
    "raise type({text!a}.replace(chr(0), ''), (Exception,), {{}})\n",
]


def proposals() -> list[tuple[str, str]]:
    """Return code to add to the script, and what to say of it, with every piece somewhere in both."""
    texts = ["".join(PIECES[start : start + 5]) for start in range(0, len(PIECES), 5)]
    found = [
        (f"{PRINTS}{ENDINGS[number % len(ENDINGS)]}".format(text=text), text)
        for number, text in enumerate(texts)
    ]
    return [*found, ("\nLR = '\x1b[2J\u202e", SCISSORS), ("\n\u202e\x9b = \ud800", "\n\nVerdict: kept")]


def run(project: Project, code: int, *arguments: str) -> str:
    """Run pytest to this exit code, assert that nothing it writes is hostile, and return its screen."""
    report = project.path / "junit.xml"
    report.unlink(missing_ok=True)
    with project.start(*arguments, "-rA", f"--junitxml={report}") as process:
        assert process.stdout is not None
        screen = process.stdout.buffer.read().decode()  # bytes, for text would lose carriage returns
    assert process.returncode == code, screen
    assert untamed(screen) == []
    if report.exists():
        for element in ET.parse(report).iter():  # noqa: S314 - our own file
            assert (
                untamed("\n".join([element.text or "", element.tail or "", *element.attrib.values()])) == []
            )
    assert not list(project.path.rglob("*hacked*"))
    return screen


def untamed(text: str) -> list[str]:
    """Return the lines of *text* that do more than to be read."""
    return [line for line in text.split("\n") if not is_tame(line)]


def read_rows(project: Project) -> list[str]:
    """Return the rows of ``results.tsv`` as they are, and assert that each has its columns."""
    rows = (project.path / "results.tsv").read_bytes().decode().removesuffix("\n").split("\n")
    assert all(row.count("\t") == 4 and is_tame(row.replace("\t", " ")) for row in rows)
    return rows


def test_a_campaign_of_hostile_texts_is_as_any_other(project: Project) -> None:
    name = re.sub("[\r\n]", "", "".join(PIECES))
    prepare = PREPARE.format(pieces=PIECES, name=f"device_name: {name}\n")
    project.script.with_name("prepare.py").write_text(prepare)
    (project.path / "conftest.py").write_text(AGENT.format(proposals=proposals()))
    project.commit()
    assert "device_name" in run(project, 1, "-k", "baseline")  # without one, the platform is shown

    screen = run(project, 0, *RESEARCH)
    shown = re.findall(r"(?m)^experiment/train.py::trial\[\d{4}-[a-z0-9.-]+\] [A-Z]", screen)
    entries, rows = project.ledger(), read_rows(project)
    assert len(proposals()) == len(shown) == len(entries) == len(rows) - 2
    assert {entry["verdict"] for entry in entries} == {"discarded", "crashed", "refused"}
    for entry in entries:
        texts = [entry[key] for key in ("description", "reason", "hypothesis", "agent")]
        assert all(map(is_tame, [*texts, *entry["declined_by"], *entry["crashes"]]))
        if entry["verdict"] == "crashed":
            assert re.match(r'(exit code 1: |val_bpb is )"[^"]*"( \(no fix: |$)', entry["reason"])

    numbers = [f"refs/autoresearch/t/{number:04d}" for number in range(len(entries) + 1)]
    refs = project.git("for-each-ref", "--format=%(refname)").splitlines()
    logs = re.compile(r"refs/autoresearch/t/log/\d{4}")
    refs = [ref for ref in refs if not logs.fullmatch(ref)]
    assert refs == [*numbers, "refs/heads/autoresearch/t", "refs/heads/main"]
    form = "--format=%(contents:trailers:key=Verdict,valueonly,separator=)"
    told = [line for line in project.git("for-each-ref", form, *numbers).splitlines() if line]
    assert told == [entry["verdict"] for entry in entries]
    assert project.is_clean()

    (project.path / ".autoresearch" / "t" / "ledger.jsonl").unlink()
    run(project, 0, *RESEARCH)
    assert project.ledger() == entries
    assert read_rows(project) == rows


def test_the_end_of_what_a_script_prints_is_shown_in_lines(project: Project) -> None:
    project.research("--autoresearch-trials=0").exits(0)
    for code, _ in proposals()[1:4]:
        project.script.write_text(SCRIPT + code)
        run(project, 1, "experiment/train.py")


PROGRAM = """\
#!{python}
import json, os, pathlib, sys

text = {text!a}.encode(errors="surrogatepass")
script = pathlib.Path("experiment/train.py")
count = pathlib.Path({count!r})
number = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (number + 1))
if number < 5:
    script.write_text(script.read_text().replace("LR = 0.04", f"LR = 0.{{90 + number}}"))
if number == 0:
    pathlib.Path(os.environ["AUTORESEARCH_DESCRIPTION_FILE"]).write_bytes(text.replace(b"\\xed", b""))
if number == 1:
    print(json.dumps(dict(result={text!a})))
if number == 2:
    sys.stdout.buffer.write(text)
if number == 3:
    pathlib.Path({file!a}).write_bytes(text)
if number == 4:
    pathlib.Path("experiment", {file!a}).mkdir()
    sys.stderr.buffer.write(text)
    sys.exit(3)
if number == 5:
    print(json.dumps(dict(result={text!a})))
    sys.exit(4)
"""


def test_a_hostile_command_is_as_any_other(project: Project) -> None:
    text = "".join(PIECES[:-2]).replace("\n", "")
    file = "\x1b[2J\r\n\u202e| `x` \udcff\x9b"
    program = project.path / "-agent \x1b[2J\u202e|.py"
    program.write_text(
        PROGRAM.format(python=sys.executable, text=text, file=file, count=str(project.temporary / "count"))
    )
    program.chmod(0o755)
    project.write(conftest_py="from pytest_autoresearch.loop import stopping\n\nstopping.FIRST_WAIT = 0.01\n")
    project.commit()
    agent = f"--autoresearch-agent={shlex.quote(str(program))}"
    run(project, 0, *RESEARCH, "--autoresearch-trials=6", agent)
    assert [entry["verdict"] for entry in project.ledger()] == ["discarded"] * 3 + ["refused"] * 3
    for entry in project.ledger():
        assert all(
            map(is_tame, [entry["description"], entry["reason"], entry["agent"], *entry["declined_by"]])
        )
    assert len(read_rows(project)) == 8


def test_the_names_of_changed_files_are_in_one_line(project: Project) -> None:
    names = ["\x1b[2J\u202e", "new\nline\r", "\x9b|"]
    for name in names:
        (project.path / name).write_text("")
    project.commit()
    for name in names:
        (project.path / name).write_text("changed")
    screen = run(project, 4, *RESEARCH)
    assert re.search(r"(?m)^ERROR: uncommitted changes in .*new line.*: commit or stash them first$", screen)


# -- the nightly workflow -----------------------------------------------------------------------------------


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the workflow runs there")


def run_step(name: str, folder: Path, **programs: str) -> str:
    """Run a step of the workflow in *folder*, with *programs* of these shell scripts; return its output."""
    workflow = yaml.safe_load(NIGHTLY.read_text(encoding="utf-8"))
    [script] = [step["run"] for step in workflow["jobs"]["research"]["steps"] if step.get("name") == name]
    (folder / "bin").mkdir(exist_ok=True)
    for program, text in programs.items():
        (folder / "bin" / program).write_text(f"#!/bin/bash\n{text}")
        (folder / "bin" / program).chmod(0o755)
    told = {"TAG": "t", "TRIALS": "2", "HOURS": "1", "TRIALS_BEFORE": "0", "KEPT_BEFORE": "0"}
    files = {name: str(folder / name) for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    path = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env=told | files | path,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@on_linux
@settings(calm, max_examples=10)
@given(st.lists(entries(), max_size=40))
def test_a_row_of_the_summary_is_a_row_of_code(
    tmp_path_factory: pytest.TempPathFactory, found: list[Trial]
) -> None:
    folder = tmp_path_factory.mktemp("night")
    rows = [results_header("val_bpb"), baseline_row("c" * 40, ()), *map(trial_row, found)]
    DerivedFile(folder / "results.tsv", rows)
    run_step("Sum up", folder, git="")
    text = (folder / "GITHUB_STEP_SUMMARY").read_bytes().decode()
    _, told, table = text.removesuffix("\n").split("\n\n")
    kept = sum(entry.verdict == "kept" for entry in found)
    assert told.startswith(f"{len(found)} trials: {kept} keep, ")
    head, _, first, *rows = table.split("\n")
    assert head == "| commit | val_bpb | memory_gb | kept |"
    assert first.endswith("| `baseline` |")
    assert len(rows) == kept
    # In a span of code there are neither links nor HTML, and nothing but a backtick ends it.
    assert all(re.fullmatch(r"\| `c{7}` \| 1\.500000 \| 0\.0 \| `[^`|]+` \|", row) for row in rows)
    news = (folder / "GITHUB_OUTPUT").read_text() if (folder / "GITHUB_OUTPUT").exists() else ""
    assert news == ("news=true\n" if rows else "")


@on_linux
@pytest.mark.parametrize(
    "name", ["Run the campaign", "Measure the baseline again"], ids=["campaign", "reproduction"]
)
def test_the_runner_hears_no_command_of_a_trial(tmp_path: Path, name: str) -> None:
    said = [run_step(name, tmp_path, pytest="echo ::error::; echo $@").splitlines() for _ in range(2)]
    stops, commands, _ = zip(*said, strict=True)
    assert commands == ("::error::", "::error::")
    assert all(re.fullmatch(r"::stop-commands::[0-9a-f-]{36}", line) for line in stops)
    assert len(set(stops)) == 2
