"""What every script comes to: its verdict, and why."""

from __future__ import annotations

import dataclasses
from pathlib import Path

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Expected:
    """How a cheat ends."""

    verdict: str
    reason: str = ""
    """Part of the reason; a score has none but itself."""
    worse: bool = False
    """Whether its score is the true one made worse, for it took more time than its budget."""


CAUGHT = Expected("refused", "it is not causal")
TRUE = Expected("discarded")  # with the true score: that of the shared model
CHARGED = Expected("discarded", worse=True)


def refused(reason: str) -> Expected:
    """Return the expectation of a refusal for that reason."""
    return Expected("refused", reason)


PROTOCOL = "the run does not keep to the protocol: "
LATE = refused("it is not the model that was announced when the clock stopped")
NO_MODEL = "it ended without handing in a model"
TRAINING = "still training after"

# In the order in which they are tried: what looks for a gift comes behind what leaves it.
CHEATS = {
    # a score that is none
    "made_up_line": Expected("crashed", NO_MODEL),
    "second_better_line": TRUE,
    "patched_evaluation": Expected("crashed", NO_MODEL),
    "rewritten_evaluation": TRUE,
    "patched_wire": TRUE,
    "forged_answer": refused(PROTOCOL + "no such message"),
    "forged_request": refused(PROTOCOL + "no such message"),
    "model_before_trained": refused(PROTOCOL + "a run hands in one model, once"),
    "trained_twice": refused(PROTOCOL + "a run hands in one model, once"),
    "two_models": refused(PROTOCOL + "a run hands in one model, once"),
    "weights_trained_on": LATE,
    "trained_after_the_clock": LATE,
    "answers_for_numbers": LATE,
    "references_for_weights": LATE,
    "garbage_on_the_wire": refused(PROTOCOL + "not a message"),
    "messages_of_other_shapes": refused(PROTOCOL),
    "stays_after_refusal": refused(PROTOCOL + "not a message"),
    "out_of_band": refused(PROTOCOL + "a byte that belongs to no message"),
    "endless_line": refused(PROTOCOL + "a message of more than"),
    "many_descriptors": refused(PROTOCOL + "too many descriptors"),
    "many_questions": refused(PROTOCOL + "no such message"),
    # a model that is none
    "fifo_for_a_model": refused("no regular file"),
    "directory_for_a_model": refused("no regular file"),
    "zeros_for_a_model": refused("no regular file"),
    "growing_model": refused("it is no s"),
    "endless_file_for_a_model": refused("it is no s"),
    "huge_model": refused("at most"),
    "unopened_model": refused("the sealed model cannot be read"),
    "pickle_for_a_model": refused("it is no s"),
    "zip_for_a_model": refused("it is no s"),
    # a model that looks ahead
    "next_token": CAUGHT,
    "block_means": CAUGHT,
    "circular_convolution": CAUGHT,
    "rare_positions": CAUGHT,
    "seldom_positions": CAUGHT,
    "last_position": CAUGHT,
    "other_rows": CAUGHT,
    "company_of_rows": TRUE,  # of each row alone
    "coarse_peek": CAUGHT,
    "coarse_scalar": CAUGHT,
    "noncausal_attention": CAUGHT,
    "batch_statistics": refused("aten.batch_norm takes statistics of all positions"),
    # a model whose predictions are no probabilities, or not its own
    "not_a_number": refused("its score is nan"),
    "infinite_logits": refused("its score is nan"),
    "no_probabilities": TRUE,
    "tiny_losses": refused("its output is of shape"),
    "small_vocabulary": refused("its vocabulary is 1, not 64"),
    "lying_tensor": refused("torch.export cannot follow the forward pass"),
    "stack_walker": TRUE,
    "odd_batch_size": TRUE,
    "random_logits": refused("aten.rand_like.default is not among the operators"),
    "dropout_at_evaluation": refused("is random"),
    "growing_memory": refused("changes a buffer: seen"),
    "memory_in_python": TRUE,  # which stays behind
    "changed_arguments": refused("aten.add_.Scalar is not among the operators"),
    "stale_memory": refused("aten.empty.memory_format is not among the operators"),
    "stale_padding": refused("circular padding by a negative number reads memory that nobody wrote"),
    "strided_memory": refused("aten.as_strided.default is not among the operators"),
    "short_keys": refused("do not fit"),
    "file_from_a_graph": refused("aten.from_file.default is not among the operators"),
    "python_from_a_graph": refused("builtins.eval is not among the operators"),
    "operator_of_its_own": refused("cannot be sealed"),
    "greedy_graph": refused(""),
    "searched_while_scored": refused("its predictions take more than"),
    "many_nodes": refused("its graph is no list of 1 to 2,000 nodes"),
    # the validation data
    "read_validation": TRUE,
    "validation_by_links": TRUE,
    "validation_by_proc": TRUE,
    "validation_by_descriptors": TRUE,
    "validation_from_the_corpus": TRUE,
    "validation_from_a_copy": TRUE,
    "validation_from_the_harness": TRUE,
    "memory_of_the_scorer": TRUE,
    "download": TRUE,
    "local_sockets": TRUE,
    # what outlasts a trial
    "spoiled_data": TRUE,
    "planted_code": TRUE,
    "planted_in_the_repository": TRUE,
    "scorers_folder": TRUE,
    "gift_left": TRUE,
    "gift_found": TRUE,
    "full_disk": TRUE,
    "deep_folders": TRUE,
    # the clock
    "endless_budget": Expected("timeout", TRAINING),
    "frozen_clock": Expected("timeout", TRAINING),
    "late_trained": Expected("timeout", TRAINING),
    "parallel_workers": Expected("timeout", TRAINING),
    "unmourned_workers": Expected("timeout", TRAINING),
    "orphaned_workers": Expected("timeout", TRAINING),
    "relaunched": Expected("timeout", TRAINING),
    "dead_leader": Expected("timeout", TRAINING),
    "unstoppable": Expected("timeout", TRAINING),
    "woken": Expected("timeout", TRAINING),
    "forged_clock": TRUE,
    "early_training": TRUE,
    "learned_before_the_clock": Expected("timeout", "start-up"),
    "overtime": CHARGED,
    "sealed_slowly": Expected("timeout", "sealing took"),
    "outsourced": Expected("crashed", NO_MODEL),
    # other processes
    "daemon": TRUE,
    "respawner": TRUE,
    "disguised_daemon": TRUE,
    "two_hundred_children": TRUE,
    "descriptors_under_way": TRUE,
    "signals": TRUE,
    "limits_the_scorer": TRUE,
    "scored_afterwards": TRUE,
    "kills_by_a_thread": TRUE,
    "keys": TRUE,
    "other_namespaces": TRUE,
    # the reader
    "embedded_answers": refused("bytes, at most 262144 are allowed"),
    "instructions_in_the_log": Expected("crashed", "exit code 1: "),
    # last, for if it works nothing does after it
    "closed_data": TRUE,
}
HONEST = sorted(path.stem for path in (HERE / "honest").glob("*.py"))
IN_FLOAT32 = {"tipping_router"}  # for 16 bits round too far; the scores are a thousandth or two apart

# What is of no use without another one before it.
AFTER = {"gift_found": "gift_left", "scored_afterwards": "limits_the_scorer"}

# What works where no sandbox is, which shows that these attempts are real ones.
WITHOUT_SANDBOX = {
    "read_validation": {"read the file", "list its folder", "watch its folder"},
    "validation_by_links": {"read a symbolic link", "read through a linked folder", "read a hard link"},
    "validation_by_proc": {"read through the root of its parent", "read through any root"},
    "validation_from_the_corpus": {"read the text"},
    "validation_from_a_copy": {
        "read another file",
        "read the wheel",
        "read the source archive",
        "read one among many",
    },
    "download": {"connect by TCP", "ask by UDP"},
    "local_sockets": {"connect to a named socket", "connect to an abstract socket"},
    "early_training": {"read the training data by name"},
    "keys": {"the environment of others", "the home"},
    "scorers_folder": {"list the session's folder", "write into the scorer's folder"},
    "gift_left": set(),
    "gift_found": {"place 0", "shared memory", "a queue", "attributes of train.tokens", "page cache"},
}


def path_of(name: str) -> Path:
    """Return the file of a script."""
    return HERE / ("scripts" if name in CHEATS else "honest") / f"{name}.py"


def uses_torch(name: str) -> bool:
    """Tell whether a script brings a model of its own, which takes seconds."""
    return "report(" in path_of(name).read_text()


def takes_long(name: str) -> bool:
    """Tell whether a script uses up its time."""
    return name in CHEATS and (CHEATS[name].verdict == "timeout" or CHEATS[name].worse)


def only_hands_in(name: str) -> bool:
    """Tell whether a script is refused for what it sends, and looks at nothing but its own folder."""
    text = path_of(name).read_text()
    refused = name in CHEATS and CHEATS[name].verdict == "refused"
    return refused and "attempt(" not in text and "mark()" not in text


def in_turns(names: list[str]) -> list[str]:
    """Return *names* evenly mixed: ten trials in a row without a score end a campaign."""
    scored = [name for name in names if name not in CHEATS or CHEATS[name].verdict == "discarded"]
    others = [name for name in names if name not in scored]
    places = {name: place / len(kind) for kind in (scored, others) for place, name in enumerate(kind)}
    return sorted(names, key=places.__getitem__)
