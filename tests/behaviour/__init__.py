"""Tests of what users see, as a black box."""
