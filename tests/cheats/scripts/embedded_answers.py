"""Carries the answers in its source, which grows beyond what is allowed."""

from prepare import hand_in_shared_model

ANSWERS = "{padding}"

hand_in_shared_model()
