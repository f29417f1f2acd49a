"""Hypothesis draws the same examples in each run: a run that fails by chance helps nobody.

Others are drawn by `pytest --hypothesis-profile=other`.
"""

from hypothesis import settings

settings.register_profile("same", derandomize=True, database=None)
settings.register_profile("other", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("same")
