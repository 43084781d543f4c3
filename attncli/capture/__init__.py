"""Real models: their attention, layer by layer, as problems whose expected figures are the model's own.

`request` and `model_folder` are plain data and come first: whatever can be refused is refused there, before torch is loaded.
"""
