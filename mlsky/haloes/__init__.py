"""Haloes on the sphere: positions, velocities and profiles of massive haloes.

The tables are those of the patch painter (`mlsky.haloes.tables`): one halo model makes the
regions that networks are trained on and the clusters of a whole sky.
"""
