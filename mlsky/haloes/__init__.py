"""Haloes on the sphere: where massive haloes are, how they move and what they look like.

The tables are those of the patch painter (`mlsky.haloes.tables`): one halo model makes the
regions that networks are trained on and the clusters of a whole sky.
"""
