"""Operators that torch lacks, or that are faster as one, in several implementations; `backend.py` picks one."""
