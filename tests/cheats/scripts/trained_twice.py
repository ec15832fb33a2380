"""Says that training is over, trains on, and says so again with the digests of other weights."""

from prepare import digests, say, start_clock

start_clock()
weights = digests()
say({"trained": []})
say({"trained": weights})
