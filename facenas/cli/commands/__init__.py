"""What the command line's longer commands do, as functions that a script or a notebook can call."""
