"""Training: from a data set's folder to one weights file that says how it was made."""
