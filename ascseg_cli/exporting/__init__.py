"""From weights to one file that another runtime runs, with the same masks: written, tried in a fresh process, or not there."""
