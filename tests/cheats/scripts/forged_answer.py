"""Says the answer itself: a score, over the wire."""

from prepare import say, start_clock

start_clock()
say({"score": 0.1})
