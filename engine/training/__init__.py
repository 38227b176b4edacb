"""From a recipe to a trained model: how a step computes, the loop around it, and what is measured on the way."""
