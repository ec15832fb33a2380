"""The script that everybody has to beat: it hands in the model that is there for everybody."""

from prepare import start_up_and_hand_in

start_up_and_hand_in()
