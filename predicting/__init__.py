"""The parts of predict.py: what images there are, batches through one or several checkpoints, and what is written."""
