"""A grid's cells as the tasks of array jobs on a Slurm cluster."""
