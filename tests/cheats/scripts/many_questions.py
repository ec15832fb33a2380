"""Asks without end, to keep the harness busy instead of watching the clock."""

from prepare import ask, say

for _ in range(100):
    ask({"open": "tokenizer.json"})
say({"open": "tokenizer.json"})
