"""Says that training is over, trains on, and says so again with the digest of other weights."""

from prepare import digest, say, start_clock

start_clock()
weights = digest()
say({"trained": "0" * 64})
say({"trained": weights})
