"""Demonstrations: robomimic HDF5 in and out, training windows, normalisation, collection."""
