"""Asks the harness for the validation data, by every name that might be one."""

from prepare import VAL_TOKENS, attempt, hand_in_shared_model, measured


def opened(name):
    return lambda: measured().open_data(name).read()


for name in (
    "val.tokens",
    "held-out/val.tokens",
    "../held-out/val.tokens",
    "library/corpus/text.txt",
    "corpus",
    "library",
    "text.txt",
    str(VAL_TOKENS),
    "/proc/self/fd/3",
    "train.tokens/../held-out/val.tokens",
    "",
    ".",
    "..",
):
    attempt(f"open {name!r}", opened(name))

hand_in_shared_model()
