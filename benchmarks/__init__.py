"""
What observability costs: ours, what others pay today, and nothing at all, side by side in one run.

`python -m benchmarks` from the project's root, in an environment that holds requirements.txt of this folder
(`make bench` builds it). See `plan.py` for how much is measured, `goals.py` for what is aimed at.
"""
