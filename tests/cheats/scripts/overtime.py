"""Uses all the time that is there before the run is ended: the budget, and the grace for its last step."""

import prepare

prepare.start_clock()
while prepare.clock() < 1.4 * prepare.TIME_BUDGET:
    sum(range(10_000))
prepare.hand_in_shared_model()
