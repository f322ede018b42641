"""Tests of the whole: the programs as processes, seen from outside alone."""
