"""Files -> images in a train, a val and a test part -> batches on the device."""
