"""Exact metrics of verification and identification: pure functions of scores and labels."""
