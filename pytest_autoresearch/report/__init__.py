"""A campaign's history, told to people.

May import campaign, and what that may import.
"""
