"""The network written down as a graph that only runs, for runtimes that know nothing of ours"""
