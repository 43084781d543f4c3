"""The parts attention is composed of: one file a family, members side by side.

No part imports torch while it is being imported: parts speak in the methods of the tensors they are handed.
"""
