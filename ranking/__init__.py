"""What rank.py is made of: features of frozen backbones, scores, an order, and the search that fine-tunes little."""
