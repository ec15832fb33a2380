"""Tests of the room's package agents/claude."""
