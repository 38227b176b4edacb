"""Backbones: their entries, their weights, and WaveMix, which torchvision lacks."""
