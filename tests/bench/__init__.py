"""Figures of vmoor, and of Istio's own path beside it, on one rig in one run.

A benchmark asserts nothing: it measures, prints and writes JSON, also when a bar is missed.
"""
