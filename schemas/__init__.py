"""What a good row is: pandera models over eager polars frames, and the reader that feeds them."""
