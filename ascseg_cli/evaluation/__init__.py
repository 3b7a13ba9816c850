"""Scores that can be believed: metrics with stated rules, named protocols, intervals, paired comparison, gates."""
