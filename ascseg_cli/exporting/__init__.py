"""From weights to one file that another runtime runs: tried in a fresh process, or not there at all"""
