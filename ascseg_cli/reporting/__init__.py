"""HTML reports: one self-contained file, with pictures, that explains scores or queues masks for review."""
