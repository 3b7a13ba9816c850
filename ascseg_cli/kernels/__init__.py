"""The two operators that torch lacks, each in several implementations; `backend.py` picks one."""
