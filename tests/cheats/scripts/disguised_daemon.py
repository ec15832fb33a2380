"""Leaves a program of the system's behind, without environment and with nothing of the trial about it."""

import subprocess

from prepare import hand_in_shared_model, mark

command = ["sh", "-c", f"sleep 299; : {mark()}"]
subprocess.Popen(command, env={}, cwd="/", start_new_session=True, close_fds=True)

hand_in_shared_model()
