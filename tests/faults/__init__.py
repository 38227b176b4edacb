"""Faults on purpose: the real programs as processes that are killed, starved, fed with damage, and judged.

python -m tests.faults                     everything, within --minutes, and the table of docs/reliability.md
python -m tests.faults kill --cases 50     one kind
python -m tests.faults kill --case 113     one case again
"""
