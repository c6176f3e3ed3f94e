"""Labelled samples in, from files or a function, and their disjoint parts.

This room knows arrays and files. It does not know models (a model's inputs come in as ``TensorSpec`` records), metrics or runtimes.
All samples are held in memory. A data set has one array of labels, or one for each labelled output of a model.
"""

from headway.data.check import check
from headway.data.dataset import Dataset, dataset_from_arrays
from headway.data.images import ImageSettings
from headway.data.load import load
from headway.data.split import Parts, Shares, split
from headway.data.summary import summary

__all__ = ["Dataset", "ImageSettings", "Parts", "Shares", "check", "dataset_from_arrays", "load", "split", "summary"]
