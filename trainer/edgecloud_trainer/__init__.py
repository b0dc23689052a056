"""The built-in trainer: image classification whose result depends neither on the number of workers nor on what died."""
