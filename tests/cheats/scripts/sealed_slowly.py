"""Says that it is sealing its model, and uses the processor for something else."""

import time

import prepare

prepare.start_clock()
prepare.say({"trained": prepare.digest()})
while time.process_time() < 60:
    sum(range(10_000))
with prepare.opened("shared.sealed") as file:
    prepare.told(prepare.ask({"model": True}, file.fileno()))
