"""Operators that torch lacks, or that are faster as one, each in several implementations; `backend.py` picks one."""
