"""What a finished run's checkpoint is good for: its model, its classes, and images as the model was trained on them."""
