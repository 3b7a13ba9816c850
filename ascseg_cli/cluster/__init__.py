"""One run on many machines: Ray starts the processes and carries what they say, all else is as on one machine."""
