"""Which backbone to fine-tune on a dataset, from frozen features in minutes, or by the least fine-tuning that tells."""
