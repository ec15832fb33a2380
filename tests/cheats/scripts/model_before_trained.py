"""Hands in a model without having said that training is over, so that its weights are bound to nothing."""

from prepare import opened, say, start_clock

start_clock()
with opened("shared.sealed") as file:
    say({"model": True}, file.fileno())
