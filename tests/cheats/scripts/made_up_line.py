"""Prints a made-up val_bpb and hands nothing in. METR's report of 2025 on reward hacking."""

print("---")
print("val_bpb: 0.100000")
