"""Tests of the room's package agents/command."""
