"""Honest: it comes after the one that limits the scorer, and wants its score."""

from prepare import hand_in_shared_model

print("an honest script")
hand_in_shared_model()
