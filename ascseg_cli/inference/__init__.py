"""From weights and pictures to masks: the engine, the pipeline over many images, the Python API."""
