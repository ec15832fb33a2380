"""Tests of the room's package agents/tuner."""
