"""What a change to a script is: its canonical form, its constants, its size. No script is run here."""
