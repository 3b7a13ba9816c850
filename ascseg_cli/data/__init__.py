"""From files to pictures: finding, reading and preparing them, and the data sets' folders. Never imports torch."""
