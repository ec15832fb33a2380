"""Leaves folders in folders, deeper than a careless removal can follow, one of them closed."""

import os

from prepare import hand_in_shared_model, mark

here = os.getcwd()
for _ in range(3000):
    os.mkdir(mark())
    os.chdir(mark())
os.chdir(here)
os.mkdir("closed", 0o300)
open("closed/inside", "w").close()
hand_in_shared_model()
